"""The OpenAPI parameters and results of the calls that aggregate logs."""

from typing import Any

from pydantic import BaseModel
from starlette.responses import Response

from factory_logs.api.openapi.document import errors
from factory_logs.api.openapi.parameters import ESCAPE_FORMULAS, Q
from factory_logs.api.openapi.q_parameter import PATH_PARTS
from factory_logs.query import DURATION
from factory_logs.query.parameters import (
    DEFAULT_BINS,
    DEFAULT_FACET_VALUES,
    DEFAULT_FAILURES,
    MAX_BINS,
    NUMBER,
    PASSED,
    ZONE,
)
from factory_logs.query.parameters import UNIT as UNIT_NAME
from factory_logs.settings import default

Schema = dict[str, Any]

_NAME: Schema = {"$ref": "#/components/schemas/FactoryLogField"}
_PATH_PATTERN = f"^(tags|fields){PATH_PARTS}$"
_NUMBER_NAME: Schema = {
    "anyOf": [
        {"enum": ["factory_log_id", "repair_id", "repair__measured_battery_capacity"]},
        {"type": "string", "pattern": _PATH_PATTERN},
    ]
}


def _parameter(name: str, description: str, schema: Schema, example: object) -> Schema:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": schema | {"examples": [example]},
    }


def _list(name: str, description: str, items: Schema, example: str) -> Schema:
    return _parameter(name, description, {"type": "array", "items": items}, [example])


def _integer(name: str, description: str, most: int, usual: int) -> Schema:
    schema: Schema = {"type": "integer", "minimum": 1, "maximum": most}
    return _parameter(name, f"{description}; {usual} by default", schema, usual)


BUCKET = _parameter(
    "bucket",
    "The length of a time bucket: a number and s, m, h, d or w, at most 9999d. Buckets begin at whole multiples of it "
    "since 0001-01-01, a Monday. Without `bucket` there is one bucket for all time",
    {"type": "string", "pattern": f"^{DURATION}$"},
    "1d",
)
ZONE_NAME = _parameter(
    "tz",
    "An IANA time zone, by default UTC. Buckets of days and weeks begin at midnight in this zone",
    {"type": "string", "pattern": f"^{ZONE}$"},
    "Asia/Shanghai",
)
BY = _list("by", "Fields or JSON paths to group by", _NAME, "app_name")
NUMBERS = _list("field", "The numbers to summarise, usually JSON paths", _NUMBER_NAME, "fields__voltage")
NUMBER_FIELD = _parameter("field", "The number, usually a JSON path", _NUMBER_NAME, "fields__voltage") | {
    "required": True
}
FACET_FIELDS = _list("field", "The fields or JSON paths whose values are counted", _NAME, "tags__jig_id") | {
    "required": True
}
PASSED_PATH = _parameter(
    "passed",
    f"The JSON path of the boolean that makes a log an attempt; {PASSED} by default",
    {"type": "string", "pattern": _PATH_PATTERN},
    PASSED,
)
UNIT_FIELD = _parameter(
    "unit", f"The field or JSON path that identifies the unit; {UNIT_NAME} by default", _NAME, UNIT_NAME
)
FAILURES_LIMIT = _integer("limit", "The maximum number of measurements", default("max_stats_rows"), DEFAULT_FAILURES)
VALUES_LIMIT = _integer(
    "limit", "The maximum number of values of each field", default("max_facet_values"), DEFAULT_FACET_VALUES
)
BINS = _integer("bins", "The number of bins of the histogram", MAX_BINS, DEFAULT_BINS)
LOWER = _parameter("lower", "The smallest good value", {"type": "string", "pattern": f"^{NUMBER}$"}, "11.4")
UPPER = _parameter("upper", "The largest good value", {"type": "string", "pattern": f"^{NUMBER}$"}, "12.6")

_TABLE: Schema = {
    "text/csv": {"schema": {"type": "string", "description": "The rows without totals, below a line of column names"}}
}


def route_options(model: type[BaseModel], example: object, *parameters: Schema, statuses: tuple[int, ...] = ()) -> Any:
    """Return the options of a route: its result model with an example, and its parameters."""
    return {
        "response_class": Response,
        "response_model": model,
        "responses": {
            **errors(400, 401, 403, *statuses, 503),
            200: {"content": {"application/json": {"example": example}, **_TABLE}},
        },
        "openapi_extra": {"parameters": [*parameters, ESCAPE_FORMULAS]},
    }


QUERY = Q

_COUNTS = {"attempts": 104, "passed": 100, "units": 101, "first_passed": 97, "last_passed": 100, "retested": 3}
_YIELDS = {"attempt_yield": 100 / 104, "first_pass_yield": 97 / 101, "final_yield": 100 / 101}
YIELD = {
    "buckets": [{"bucket": "2024-01-31 00:00:00", "tags__jig_id": "J-07", **_COUNTS, **_YIELDS}],
    "total": {**_COUNTS, **_YIELDS, "rolled_throughput_yield": 97 / 101},
}
FAILURES = {
    "failed_attempts": 4,
    "failures": [
        {"measurement": "fields__output_12v", "attempts": 3, "units": 2, "share": 0.75, "cumulative_share": 0.75},
        {"measurement": None, "attempts": 1, "units": 1, "share": 0.25, "cumulative_share": 1.0},
    ],
}
DISTRIBUTION = {
    "groups": [
        {
            "tags__jig_id": "J-07", "count": 4, "mean": 12.0, "stddev": 0.08164965809277261, "min": 11.9, "max": 12.1,
            "p1": 11.9, "p5": 11.9, "p25": 11.9, "p50": 12.0, "p75": 12.0, "p95": 12.1, "p99": 12.1,
            "histogram": [{"from": 11.9, "to": 12.0, "count": 1}, {"from": 12.0, "to": 12.1, "count": 3}],
            "below": 0, "above": 0, "cp": 3.384, "cpk": 3.384, "pp": 2.449489742783178, "ppk": 2.449489742783178,
        }
    ]
}  # fmt: skip
FACETS = {"facets": {"tags__jig_id": {"values": [{"value": "J-07", "count": 146}], "other": 12, "missing": 0}}}
CATALOG = {
    "apps": [
        {
            "app_name": "tiger_test_jig_production", "logs": 1140,
            "first": "2024-01-29 00:03:08.832000", "last": "2024-01-31 13:59:02.100000",
            "tags": [{"path": "tags__jig_id", "types": ["string"]}],
            "fields": [
                {"path": "fields__output_12v__pass", "types": ["boolean"]},
                {"path": "fields__output_12v__value", "types": ["number"]},
                {"path": "fields__passed", "types": ["boolean"]},
            ],
        }
    ]
}  # fmt: skip
UNIT = {
    "product_imei": "352099001761481",
    "logs": 2,
    "first": "2024-01-31 08:12:41.331000",
    "last": "2024-01-31 09:01:10.004000",
    "apps": [
        {
            "app_name": "tiger_test_jig_production", "logs": 2, "attempts": 2, "passed": 1,
            "first": "2024-01-31 08:12:41.331000", "last": "2024-01-31 09:01:10.004000", "last_passed": True,
        }
    ],
    "repairs": [],
}  # fmt: skip
STATS = {
    "buckets": [
        {
            "bucket": "2024-01-01 00:00:00",
            "app_name": "tiger_test_jig_production",
            "count": 12,
            "values": {
                "fields__voltage": {"count": 11, "min": 3.1, "avg": 3.254, "max": 3.41, "p50": 3.26, "p95": 3.4}
            },
        }
    ]
}

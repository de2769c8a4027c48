"""`GET /v1/factory_logs/stats`: numbers for plots (SPEC 5)."""

from typing import Any

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.compression import compressed
from factory_logs.api.deps import Reader, ServicesDep
from factory_logs.api.direct import DirectRoute
from factory_logs.api.log_reads_openapi import Q
from factory_logs.api.openapi import errors
from factory_logs.api.paging import query_limits
from factory_logs.api.streams import unless_gone
from factory_logs.errors import QueryTooLongError
from factory_logs.query import DURATION, FACTORY_LOGS, MEASURES, parse_query, parse_stats, what_to_narrow
from factory_logs.reading.stats import read_stats

router = APIRouter(prefix="/v1/factory_logs", tags=["factory logs"], route_class=DirectRoute)

_NAME: dict[str, Any] = {"$ref": "#/components/schemas/FactoryLogField"}
_NUMBER_NAME: dict[str, Any] = {
    "anyOf": [{"enum": ["factory_log_id", "repair_id", "repair__measured_battery_capacity"]}, {"type": "string",
    "pattern": "^(tags|fields)(__[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*){1,16}$"}]
}  # fmt: skip
_MEASURED: dict[str, Any] = {measure: {"type": ["number", "null"]} for measure in MEASURES}
_ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["buckets"],
    "properties": {
        "buckets": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["count"],
                "properties": {
                    "bucket": {"type": "string", "description": "When it begins, UTC; the value of each `by` follows"},
                    "count": {"type": "integer", "description": "How many logs there are in it"},
                    "values": {
                        "type": "object",
                        "description": "Of each `field`, by its name: how many logs have a number there, and which",
                        "additionalProperties": {"type": "object", "properties": _MEASURED},
                    },
                },
            },
        }
    },
}
_EXAMPLE: dict[str, Any] = {
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


def _list(name: str, description: str, items: dict[str, Any], example: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": description,
        "schema": {"type": "array", "items": items, "examples": [[example]]},
    }


DOCUMENTATION: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        **errors(400, 401, 403, 503),
        200: {
            "description": "A list by bucket and group; without logs there is no bucket",
            "content": {"application/json": {"schema": _ANSWER, "example": _EXAMPLE}},
        },
    },
    "openapi_extra": {
        "parameters": [
            Q,
            {
                "name": "bucket",
                "in": "query",
                "required": False,
                "description": "How long a time bucket is: a number and s, m, h, d or w, at most 9999d. Buckets "
                "begin at whole multiples since 0001-01-01, a Monday. Without it all time is one bucket",
                "schema": {"type": "string", "pattern": f"^{DURATION}$", "examples": ["1h"]},
            },
            _list("by", "Fields or JSON paths to group by", _NAME, "app_name"),
            _list("field", "Numbers to measure: JSON paths, mostly", _NUMBER_NAME, "fields__voltage"),
        ]
    },
}


@router.get("/stats", **DOCUMENTATION)
async def get_stats(request: Request, _: Reader, services: ServicesDep) -> Response:
    """How many logs `q` selects, and what they measured, by time bucket and by any field.

    `q` may hold `filters` only. Of each `field` there are count, min, avg, max, p50 and p95 over the logs that have a
    number there; other values are left out. Percentiles are of the nearest rank.
    """
    asked, settings = request.query_params, services.settings
    query = parse_query(asked.get("q"), FACTORY_LOGS, query_limits(settings))
    stats = parse_stats(
        query, asked.get("bucket"), asked.getlist("by"), asked.getlist("field"), FACTORY_LOGS,
        settings.max_stats_fields,
    )  # fmt: skip
    reading = read_stats(services.database, stats, settings.max_stats_rows)
    try:
        buckets = await unless_gone(request.receive, reading)
    except QueryTooLongError as error:
        raise error.saying(what_to_narrow(query, FACTORY_LOGS)) from error
    return await compressed(request, orjson.dumps({"buckets": buckets}), settings)

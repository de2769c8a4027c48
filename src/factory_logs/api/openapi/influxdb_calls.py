"""InfluxDB's calls and their responses in the OpenAPI document (docs/reference/http-api.md#influxdbs-calls)."""

from typing import Any

from pydantic import BaseModel, Field

from factory_logs.api.openapi.parameters import CONTENT_ENCODING, IDEMPOTENCY_KEY
from factory_logs.influxdb.line_protocol import PRECISIONS
from factory_logs.influxdb.query_response import DEFAULT_CHUNK_ROWS, EPOCHS


class InfluxError1(BaseModel):
    """An error as InfluxDB 1.x sends it."""

    error: str = Field(examples=["partial write: line 2: unable to parse 'm f=': missing field value dropped=1"])


class InfluxError2(BaseModel):
    """An error as InfluxDB 2.x sends it."""

    code: str = Field(examples=["invalid"])
    message: str = Field(examples=["partial write: line 2: unable to parse 'm f=': missing field value dropped=1"])
    line: int | None = Field(None, description="The number of the first bad line, from 1", examples=[2])


class InfluxHealth(BaseModel):
    """Whether the service can store points."""

    name: str = Field(examples=["influxdb"])
    message: str = Field(examples=["ready for queries and writes"])
    status: str = Field(examples=["pass"])
    version: str = Field(examples=["1.8.10"])
    checks: list[object]


class InfluxVersion(BaseModel):
    """The emulated version of InfluxDB."""

    version: str = Field(examples=["1.8.10"])


class InfluxResults(BaseModel):
    """The response to InfluxQL statements."""

    results: list[dict[str, object]] = Field(
        examples=[
            [
                {
                    "statement_id": 0,
                    "series": [
                        {
                            "name": "tiger",
                            "tags": {"jig_id": "J-07"},
                            "columns": ["time", "mean"],
                            "values": [["2024-01-31T13:00:00Z", 3.28]],
                        }
                    ],
                }
            ]
        ]
    )


_EXAMPLE = (
    "tiger_test_jig_production,product_imei=352099001761481,jig_id=J-07,hostname=CN-REG03 "
    'passed=true,voltage=3.28,cycles=12i,note="ok" 1706708700123456789\n'
)
_MEANINGS = {
    400: "Some lines are bad: the error lists them, and the good lines are stored. Or no line could be parsed",
    401: "Token missing or invalid",
    403: "The token does not allow writing",
    404: "The bucket is missing",
    408: "The body did not arrive in time; no line of it is stored",
    409: "The Idempotency-Key was used with another body",
    413: "The body is too large; no line of it is stored",
    415: "The Content-Encoding is not supported",
    503: "The service is overloaded, or the database is unreachable; retry after Retry-After seconds",
}
_SECURITY: list[dict[str, list[str]]] = [{"Token": []}, {"Basic": []}]


def _errors(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": model, "description": _MEANINGS[status]} for status in statuses}


def _parameter(name: str, description: str, *, required: bool = False, **schema: Any) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": description,
        "schema": {"type": "string"} | schema,
    }


def _write(parameters: list[dict[str, Any]], *, body_required: bool) -> dict[str, Any]:
    return {
        "security": _SECURITY,
        "parameters": [
            *parameters,
            _parameter("precision", "The unit of the lines' times, by default `ns`", enum=list(PRECISIONS)),
            IDEMPOTENCY_KEY,
            CONTENT_ENCODING,
        ],
        "requestBody": {
            "required": body_required,
            "description": "Line protocol. The measurement becomes `app_name`, the tags `product_imei` and "
            "`repair_id` their columns, other tags `tags`, fields `fields`, the time `timestamp`.",
            "content": {"text/plain": {"schema": {"type": "string"}, "example": _EXAMPLE}},
        },
    }


WRITE_1: dict[str, Any] = {
    "response_description": "All points are stored",
    "responses": _errors(InfluxError1, 400, 401, 403, 408, 409, 413, 415, 503),
    "openapi_extra": _write(
        [
            _parameter("db", "The database; any name is accepted", required=True, minLength=1),
            _parameter("u", "A user; ignored"),
            _parameter("p", "The token, if it is not in the Authorization header"),
            _parameter("rp", "A retention policy; ignored"),
            _parameter("consistency", "Ignored: a 204 means that all points are on disk"),
        ],
        body_required=False,
    ),
}

WRITE_2: dict[str, Any] = {
    "response_description": "All points are stored",
    "responses": _errors(InfluxError2, 400, 401, 403, 404, 408, 409, 413, 415, 503),
    "openapi_extra": _write(
        [
            _parameter("bucket", "The bucket; any name is accepted", required=True, minLength=1),
            _parameter("org", "An organisation; ignored"),
        ],
        body_required=True,
    ),
}

PING: dict[str, Any] = {
    "response_description": "The service is running",
    "responses": {200: {"model": InfluxVersion, "description": "With `verbose`: the emulated version of InfluxDB"}},
    "openapi_extra": {"parameters": [_parameter("verbose", "With `true` the response has a body")]},
}

HEALTH: dict[str, Any] = {
    "response_model": InfluxHealth,
    "response_description": "Points can be stored",
    "responses": {503: {"model": InfluxHealth, "description": "The database cannot be reached"}},
}

_STATEMENTS = {
    "mean by time": 'SELECT mean("voltage") FROM "tiger" WHERE time >= now() - 7d GROUP BY time(1h), "jig_id"',
    "last values": 'SELECT last("voltage") FROM "tiger" GROUP BY "jig_id"',
    "points": """SELECT "voltage", "jig_id" FROM "tiger" WHERE "passed" = false ORDER BY time DESC LIMIT 10""",
    "tags": 'SHOW TAG VALUES FROM "tiger" WITH KEY = "jig_id"',
    "several": "SHOW MEASUREMENTS; SHOW FIELD KEYS",
}

QUERY: dict[str, Any] = {
    "response_model": InfluxResults,
    "response_description": "The results of the statements; a statement that failed has an `error`",
    "responses": _errors(InfluxError1, 400, 408, 413, 415)
    | {
        401: {"model": InfluxError1, "description": "Token missing or invalid"},
        403: {
            "model": InfluxError1,
            "description": "A statement writes or manages data, or the token does not allow reading",
        },
        503: {
            "model": InfluxError1,
            "description": "Too many queries are running, or the database is unreachable; retry",
        },
    },
    "openapi_extra": {
        "security": _SECURITY,
        "parameters": [
            _parameter(
                "q",
                "Statements, separated by semicolons; POST also accepts them in a form",
                minLength=1,
            )
            | {"examples": {name: {"value": text} for name, text in _STATEMENTS.items()}},
            _parameter("db", "Any name is accepted, because there is one database"),
            _parameter(
                "epoch",
                "The unit of times, which are then numbers; by default times are in the format of RFC 3339",
                enum=list(EPOCHS),
            ),
            _parameter("params", "Values of `$name` in the statements, as a JSON object"),
            _parameter("chunked", "With `true` the results are sent in pieces, each a line with a JSON document"),
            _parameter("chunk_size", f"The maximum number of rows in a piece, by default {DEFAULT_CHUNK_ROWS}"),
            _parameter("pretty", "With `true` the JSON is indented"),
            _parameter("u", "A user; ignored"),
            _parameter("p", "The token, if it is not in the Authorization header"),
        ],
    },
}

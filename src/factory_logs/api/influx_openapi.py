"""What the OpenAPI document says of InfluxDB's calls (SPEC 6, 8)."""

from typing import Any

from pydantic import BaseModel

from factory_logs.api.log_writes_openapi import CONTENT_ENCODING, IDEMPOTENCY_KEY
from factory_logs.influx.line_protocol import PRECISIONS
from factory_logs.schemas.influx import InfluxError1, InfluxError2, InfluxHealth, InfluxResults, InfluxVersion

_EXAMPLE = (
    "tiger_test_jig_production,product_imei=352099001761481,jig_id=J-07,hostname=CN-REG03 "
    'passed=true,voltage=3.28,cycles=12i,note="ok" 1706708700123456789\n'
)
_MEANINGS = {
    400: "Some lines are bad: the error names them, the good ones are stored; or nothing could be read at all",
    401: "Token missing or invalid",
    403: "The token may not write",
    404: "No bucket is named",
    408: "The body did not arrive in time; nothing of it is stored",
    409: "The Idempotency-Key was used with another body",
    413: "The body is too large; nothing of it is stored",
    415: "The Content-Encoding is not one that is read",
    503: "The service cannot take more, or the database is away; send it again after Retry-After seconds",
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
            _parameter("db", "The writer's database; any name will do", required=True, minLength=1),
            _parameter("u", "A user; not looked at"),
            _parameter("p", "The token, where it is not in the Authorization header"),
            _parameter("rp", "A retention policy; not looked at"),
            _parameter("consistency", "Not looked at: what is answered with 204 is on the disk"),
        ],
        body_required=False,
    ),
}

WRITE_2: dict[str, Any] = {
    "response_description": "All points are stored",
    "responses": _errors(InfluxError2, 400, 401, 403, 404, 408, 409, 413, 415, 503),
    "openapi_extra": _write(
        [
            _parameter("bucket", "The writer's bucket; any name will do", required=True, minLength=1),
            _parameter("org", "An organisation; not looked at"),
        ],
        body_required=True,
    ),
}

PING: dict[str, Any] = {
    "response_description": "The service answers",
    "responses": {200: {"model": InfluxVersion, "description": "With `verbose`: the version that is emulated"}},
    "openapi_extra": {"parameters": [_parameter("verbose", "`true` gives a body")]},
}

HEALTH: dict[str, Any] = {
    "response_model": InfluxHealth,
    "response_description": "Points can be stored",
    "responses": {503: {"model": InfluxHealth, "description": "The database is away"}},
}

QUERY: dict[str, Any] = {
    "response_model": InfluxResults,
    "response_description": "The statement is answered",
    "responses": _errors(InfluxError1, 400, 401, 403, 408, 413, 415, 503),
    "openapi_extra": {
        "security": _SECURITY,
        "parameters": [
            _parameter("q", 'A statement: `CREATE DATABASE "x"` does nothing, `SHOW DATABASES` lists one', minLength=1)
        ],
    },
}

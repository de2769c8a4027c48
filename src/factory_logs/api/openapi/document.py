"""The parts of the OpenAPI document that FastAPI does not derive (docs/reference/http-api.md#openapi): error responses,
headers, `q`, and bodies that routes parse themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from factory_logs.api.openapi.q_parameter import query_parameter, query_schemas
from factory_logs.errors import NOT_AUTHENTICATED
from factory_logs.permissions import Level
from factory_logs.query import FACTORY_LOGS, REPAIRS
from factory_logs.schemas.errors import ErrorBody
from factory_logs.schemas.factory_log import EXPECTED_IMEI, IMEI_DIGITS, FactoryLogIn
from factory_logs.settings import default

DESCRIPTION = f"""\
Stores and serves the product logs of factories and repair centres.

Press **Authorize** to enter a token; the header is `Authorization: Token token=<token>`. A token comes from
`POST /v1/auth/login` and expires {default("session_idle_seconds") // 3600} hours after its last use, or from
`factory-logs tokens issue`. Each permission level includes the levels before it: {", ".join(Level)}. Reading needs
OVERVIEW, writing needs SYSTEM.

**Datetimes** in requests are ISO 8601, with a zone or in UTC, or integer milliseconds since 1970. In responses they are
in UTC as `YYYY-MM-DD HH:MM:SS`, with `.ffffff` if the fraction is not zero.

**Every error** has the same JSON body: `message`, `errors` (only if fields are invalid) and `request_id`, which is also
in the header `X-Request-ID` and in the service's log. A method that a path does not have gets a 405 with `Allow`. The
status 422 is never sent.
"""
TAGS = [
    {
        "name": "factory logs",
        "description": "The records that test jigs and upload tools send. They are never changed.",
    },
    {
        "name": "test results",
        "description": "Yield, failures, distributions, facets and histories of units, computed from the logs.",
    },
    {"name": "repairs", "description": "The stays of units in repair centres, which a log's `repair_id` refers to."},
    {"name": "auth", "description": "Log in with username and password to get a token."},
    {"name": "InfluxDB", "description": "Calls for clients of InfluxDB 1.x or 2.x: line protocol."},
    {"name": "operations", "description": "Calls for operators of the service. They need no token."},
]

_REQUEST_ID = "8876ce82a6a1c712"
_ERRORS: dict[int, tuple[str, dict[str, Any]]] = {
    400: (
        "Bad request: the message says what is wrong and where",
        {
            "message": "Validation failed",
            "errors": [{"field": "product_imei", "message": EXPECTED_IMEI}],
        },
    ),
    401: ("Token missing or invalid", {"message": NOT_AUTHENTICATED}),
    403: ("The permission level is too low", {"message": "This needs the permission SYSTEM; ann has OVERVIEW."}),
    404: ("The record does not exist", {"message": "There is no factory log 12"}),
    405: ("The path does not have this method; `Allow` lists its methods", {"message": "Method Not Allowed"}),
    408: ("The body did not arrive in time; send it again", {"message": "The body did not arrive in time"}),
    409: ("The Idempotency-Key was used with another body", {"message": "The key was used with another body"}),
    413: ("The body is too large", {"message": "The body is over the limit of 16777216 bytes"}),
    415: (
        "The content type or encoding is not supported",
        {"message": "The request must have the header Content-Type: application/json"},
    ),
    429: (
        "Too many failed logins; retry after `Retry-After` seconds",
        {"message": "Too many failed logins; try again later."},
    ),
    500: ("An error of the service, whose details are in the service's log", {"message": "Internal server error"}),
    503: (
        "The service is overloaded, or the database is unreachable; retry after `Retry-After` seconds",
        {"message": "The database cannot be reached; try again shortly."},
    ),
}
_BAD_LOGIN = {"message": "The username or the password is wrong.", "request_id": _REQUEST_ID}

_TEXT = {"schema": {"type": "string"}}
_SECONDS = {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}
_HEADERS: dict[str, dict[str, Any]] = {
    "401": {"WWW-Authenticate": _TEXT | {"example": 'Token realm="factory-logs"'}},
    "429": {"Retry-After": _SECONDS},
    "503": {"Retry-After": _SECONDS},
}
_BOOLEAN = {"schema": {"type": "boolean"}}
_REPLAYED = {
    "Idempotency-Replayed": _BOOLEAN
    | {"description": "`true`: this is the first response again, to a retry with the same key; nothing was stored"}
}
_KEY_USED = {
    "Idempotency-Key-Used": _BOOLEAN
    | {
        "description": "With an Idempotency-Key: whether a write is stored under it. An error without this header does "
        "not show that"
    }
}
_LOCATION = {"Location": _TEXT | {"description": "The URL of the record"}}
_LINK = {
    "Link": _TEXT
    | {
        "description": "The URLs of the next page, if there is one, and of the last page: "
        '`<url>; rel="next", <url>; rel="last"`',
        "example": '<http://127.0.0.1:8000/v1/factory_logs?page=2&results_per_page=10>; rel="next"',
    }
}

_RECORD_ID = {"examples": ["1"], "description": "An integer; any other text gets a 404"}
_PATH_PARAMETERS = {
    "product_imei": {"examples": ["352099001761481"], "description": f"{IMEI_DIGITS} digits; any other text gets a 404"}
}
_BASIC = {
    "type": "http",
    "scheme": "basic",
    "description": "InfluxDB 1.x: any username, with the token as the password.",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route that may respond with these error statuses."""
    return {
        status: {
            "model": ErrorBody,
            "description": _ERRORS[status][0],
            "content": {"application/json": {"example": _ERRORS[status][1] | {"request_id": _REQUEST_ID}}},
        }
        for status in statuses
    }


def link_to(operation: str, parameter: str) -> dict[int | str, dict[str, Any]]:
    """Return the `responses` of a route whose 201 links to the call that returns the new record by its id.

    Logs have no such link, because a link has one path, but the responses to a log and to a batch have the id at
    different paths.
    """
    expression = f"$response.body#/{parameter}"
    return {201: {"links": {"the_stored_record": {"operationId": operation, "parameters": {parameter: expression}}}}}


def document_body(model: type[BaseModel]) -> dict[str, Any]:
    """Return the `openapi_extra` of a route that parses its JSON body itself."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _filter(name: str, op: str, val: object) -> dict[str, object]:
    return {"name": name, "op": op, "val": val}


def _example(summary: str, **q: object) -> dict[str, Any]:
    return {"summary": summary, "value": q}


_LOG_EXAMPLES = {
    "all": _example("All logs"),
    "unit": _example("The logs of one unit", filters=[_filter("product_imei", "==", "352099001761481")]),
    "failed": _example(
        "The failed tests on jig J-07 since a date",
        filters=[
            _filter("tags__jig_id", "==", "J-07"),
            _filter("fields__passed", "==", False),
            _filter("timestamp", ">=", "2024-01-31"),
        ],
        order_by=[{"field": "timestamp", "direction": "desc"}],
    ),
    "either": _example(
        "Two apps, or a low voltage",
        filters=[
            {
                "or": [
                    _filter("app_name", "in", ["tiger_test_jig_production", "koala_test_jig_production"]),
                    _filter("fields__battery__voltage", "<", 3.2),
                ]
            }
        ],
    ),
    "repaired": _example(
        "The last log of each unit that was repaired and returned",
        filters=[_filter("repair__process", "has", "Repair and Return")],
        group_by=[{"field": "product_imei"}],
    ),
    "related": _example(
        "Logs whose repair matches", filters=[_filter("repair", "has", _filter("arrival_date", ">=", "2024-01-29"))]
    ),
    "none": _example("Logs without a unit", filters=[{"name": "product_imei", "op": "is_null"}], limit=100),
    "single": _example("A single record instead of a page", filters=[_filter("factory_log_id", "==", 1)], single=True),
}
_REPAIR_EXAMPLES = {
    "all": _example("All repairs"),
    "open": _example("Units that are still in repair", filters=[{"name": "refurbishment_date", "op": "is_null"}]),
    "last": _example("The last repair of each unit", group_by=[{"field": "product_imei"}]),
}


def install(app: FastAPI) -> None:
    """Complete the OpenAPI document of the app. Remove the 422 that FastAPI adds, because the service never sends
    it."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            schemas = made["components"]["schemas"]
            made["components"].setdefault("securitySchemes", {})["Basic"] = _BASIC
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            schemas |= {"FactoryLogIn": FactoryLogIn.model_json_schema()}
            schemas |= query_schemas("FactoryLog", FACTORY_LOGS, related="Repair") | query_schemas("Repair", REPAIRS)
            for path, operations in made["paths"].items():
                for method, operation in operations.items():
                    _complete(path, method, operation)
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def _complete(path: str, method: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    responses.pop("422", None)
    if path.startswith("/v1/"):
        route_options, example = _ERRORS[500]
        content = {
            "schema": {"$ref": "#/components/schemas/ErrorBody"},
            "example": example | {"request_id": _REQUEST_ID},
        }
        responses["500"] = {"description": route_options, "content": {"application/json": content}}
    for status, headers in _HEADERS.items():
        if status in responses:
            responses[status]["headers"] = headers
    if "201" in responses:
        _add_headers(responses["201"], _LOCATION)
    if path == "/v1/auth/login":
        responses["401"]["content"]["application/json"]["example"] = _BAD_LOGIN
    parameters = operation.get("parameters", [])
    if path.startswith("/v1/") and any(parameter["name"] == "Idempotency-Key" for parameter in parameters):
        _add_headers(responses["201"], _REPLAYED)
        _add_headers(responses["400"], _KEY_USED)
        if path == "/v1/factory_logs":
            _add_headers(responses["413"], _KEY_USED)
    is_paged = any(parameter["name"] == "page" for parameter in parameters)
    for index, parameter in enumerate(parameters):
        if parameter["in"] == "path":
            parameter["schema"] |= _PATH_PARAMETERS.get(parameter["name"], _RECORD_ID)
        if path.startswith("/v1/") and parameter["in"] == "query" and parameter["name"] == "q":
            of_repairs = path.startswith("/v1/repairs")
            name, examples = ("Repair", _REPAIR_EXAMPLES) if of_repairs else ("FactoryLog", _LOG_EXAMPLES)
            parameters[index] = query_parameter(name, examples, only_filters=not is_paged)
            if is_paged:
                _add_headers(responses["200"], _LINK)


def _add_headers(response: dict[str, Any], headers: dict[str, Any]) -> None:
    response["headers"] = response.get("headers", {}) | headers

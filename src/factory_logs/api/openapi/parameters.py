"""The OpenAPI parameters, bodies and responses of routes that parse their query string or body themselves
(docs/reference/http-api.md#openapi)."""

from typing import Any

from factory_logs.api.http.pagination import LENGTH as CURSOR_LENGTH
from factory_logs.api.openapi.document import errors
from factory_logs.schemas.factory_log import BatchCreated, FactoryLogIn, FactoryLogOut
from factory_logs.settings import default

Q: dict[str, Any] = {"name": "q", "in": "query", "required": False}
"""The schema and the description are in api/openapi/q_parameter.py."""

EXPORTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "All records that `q` selects, one record per line"}
            },
            "text/csv": {
                "schema": {"type": "string", "description": "The same records, after a line with the column names"}
            },
        }
    }
}
"""The `responses` of a route with pages, by `Accept`. An aborted export ends without the last chunk."""

_PAGE: dict[str, Any] = {
    "name": "page",
    "in": "query",
    "required": False,
    "description": "The number of the page, from 1; after the last page `objects` is empty",
    "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,8}$", "examples": ["1"]},
}
_RESULTS_PER_PAGE: dict[str, Any] = {
    "name": "results_per_page",
    "in": "query",
    "required": False,
    "description": f"The number of records on a page: by default {default('default_results_per_page')}, at most "
    f"{default('max_results_per_page')}",
    "schema": {"type": "string", "examples": ["10"]},
}
_CURSOR: dict[str, Any] = {
    "name": "cursor",
    "in": "query",
    "required": False,
    "description": 'Empty for the first page of all that `q` selects; `Link: <...>; rel="next"` has the next one, '
    "each page at the same cost. Instead of `page`; not with `group_by` or `single`",
    "allowEmptyValue": True,
    "schema": {"type": "string", "pattern": f"^([A-Za-z0-9_-]{{{CURSOR_LENGTH}}})?$", "examples": [""]},
}
ESCAPE_FORMULAS: dict[str, Any] = {
    "name": "escape_formulas",
    "in": "query",
    "required": False,
    "description": "With `Accept: text/csv`: put an apostrophe before texts that a spreadsheet would run as a formula. "
    "These begin with `=`, `+`, `-`, `@`, a tab or a line end",
    "schema": {"type": "string", "enum": ["true", "false"], "default": "false"},
}
PAGING: dict[str, Any] = {"parameters": [Q, _PAGE, _RESULTS_PER_PAGE, _CURSOR, ESCAPE_FORMULAS]}
"""The `openapi_extra` of a route with pages."""

_CACHING: dict[str, Any] = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in (
        ("ETag", "Identifies exactly these bytes"),
        ("Cache-Control", "How long a client may cache the record, which never changes"),
        ("Vary", "The record may be cached only for the client's own token"),
    )
}
CACHED: dict[int | str, dict[str, Any]] = {
    200: {"headers": _CACHING},
    304: {"description": "The client already has the record, according to `If-None-Match`", "headers": _CACHING},
}
"""The `responses` of a route whose record never changes."""

IF_NONE_MATCH: dict[str, Any] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of the record that the client has. If it is the same, the response is a 304 without a "
    "body",
    "schema": {"type": "string", "examples": ['"8876ce82a6a1c71203d59d9f"']},
}


_SCHEMA_EXTRA: Any = FactoryLogIn.model_config["json_schema_extra"]
_EXAMPLE: dict[str, Any] = _SCHEMA_EXTRA["examples"][0]
_LOG = {"$ref": "#/components/schemas/FactoryLogIn"}

IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A second request with the same key and body stores nothing and gets the first response again, "
    "marked `Idempotency-Replayed: true`. The same key with another body gets a 409. "
    f"A key is stored for {default('idempotency_seconds') // 3600} hours.",
    "schema": {"type": "string", "pattern": r"^[\x21-\x7e]([\x20-\x7e]{0,253}[\x21-\x7e])?$"},
}
CONTENT_ENCODING: dict[str, Any] = {
    "name": "Content-Encoding",
    "in": "header",
    "required": False,
    "description": "How the body is compressed",
    "schema": {"type": "string", "enum": ["identity", "gzip", "zstd"]},
}
_ON_ERROR: dict[str, Any] = {
    "name": "on_error",
    "in": "query",
    "required": False,
    "description": "With `skip`, the good records of a batch are stored and the bad ones are reported. Without it, "
    "nothing is stored if one record is bad",
    "schema": {"type": "string", "enum": ["skip"]},
}

DOCUMENTATION: dict[str, Any] = {
    "response_model": FactoryLogOut | BatchCreated,
    "response_description": "The stored log, or the ids of the logs of the stored batch",
    "responses": errors(400, 401, 403, 408, 409, 413, 415, 503),
    "openapi_extra": {
        "parameters": [_ON_ERROR, IDEMPOTENCY_KEY, CONTENT_ENCODING],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"oneOf": [_LOG, {"type": "array", "items": _LOG}]},
                    "examples": {
                        "one log": {"value": _EXAMPLE},
                        "a batch": {"value": [_EXAMPLE, _EXAMPLE | {"product_imei": "352099001761499"}]},
                    },
                },
                "application/x-ndjson": {
                    "schema": {"type": "string", "description": "One log per line"},
                    "example": '{"app_name":"koala_test_jig_production","timestamp":"2024-01-31 13:45:00"}\n',
                },
            },
        },
    },
}

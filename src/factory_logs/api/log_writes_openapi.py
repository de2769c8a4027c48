"""What the OpenAPI document says of a write that reads its own body (SPEC 6, 7)."""

from typing import Any

from factory_logs.api.openapi import errors
from factory_logs.schemas.batch import BatchCreated
from factory_logs.schemas.factory_log import FactoryLogIn, FactoryLogOut

_SCHEMA_EXTRA: Any = FactoryLogIn.model_config["json_schema_extra"]
_EXAMPLE: dict[str, Any] = _SCHEMA_EXTRA["examples"][0]
_LOG = {"$ref": "#/components/schemas/FactoryLogIn"}

IDEMPOTENCY_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body gives the first answer again, marked `Idempotency-Replayed: true`, and "
    "stores nothing; another body is a 409. Kept for 24 hours.",
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
    "description": "`skip` stores the good records of a batch; without it a bad record means that nothing is stored",
    "schema": {"type": "string", "enum": ["skip"]},
}

DOCUMENTATION: dict[str, Any] = {
    "response_model": FactoryLogOut | BatchCreated,
    "response_description": "The stored log, or what became of the batch",
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
                    "schema": {"type": "string", "description": "One log a line"},
                    "example": '{"app_name":"koala_test_jig_production","timestamp":"2024-01-31 13:45:00"}\n',
                },
            },
        },
    },
}

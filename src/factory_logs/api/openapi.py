"""What the OpenAPI document says beyond what FastAPI derives: error answers, and bodies that routes read themselves."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from factory_logs.schemas.errors import ErrorBody

_MEANINGS = {
    400: "Bad request: the message says what and where",
    401: "Token missing or invalid",
    403: "Not enough permission",
    404: "There is no such record",
    405: "Method not allowed",
    413: "The body is too large",
    415: "Not a JSON content type",
    429: "Too many tries",
    503: "The service cannot take more, or the database is away; send it again after Retry-After seconds",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may answer with these errors."""
    return {status: {"model": ErrorBody, "description": _MEANINGS[status]} for status in statuses}


def document_body(model: type[BaseModel]) -> dict[str, Any]:
    """The `openapi_extra` of a route that reads its JSON body itself."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def install(app: FastAPI) -> None:
    """Let the app's document leave out the 422 that FastAPI adds: it is never sent (SPEC 3)."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title=app.title,
                version=app.version,
                description=app.description,
                routes=app.routes,
                tags=app.openapi_tags,
            )
            for operations in document["paths"].values():
                for operation in operations.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                document["components"]["schemas"].pop(name, None)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]

"""JSON answers and JSON bodies."""

from collections.abc import Mapping

import orjson
from fastapi import Request
from starlette.responses import Response

from factory_logs.errors import UnsupportedMediaTypeError

_JSON_TYPES = {"application/json", "application/vnd.api+json"}


def json_answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer whose body is JSON. Text that is JSON already comes as orjson.Fragment and is not decoded."""
    return Response(orjson.dumps(content), status, headers, "application/json")


async def json_body(request: Request) -> bytes:
    """The body of a write. Raises UnsupportedMediaTypeError where it does not claim to be JSON."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type not in _JSON_TYPES:
        raise UnsupportedMediaTypeError("The request must have the header Content-Type: application/json")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMediaTypeError(f"Content-Encoding {encoding!r} is not read here; send the body as it is")
    return await request.body()

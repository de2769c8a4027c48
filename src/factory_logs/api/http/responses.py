"""JSON responses that cost as little as possible, because they are on every hot path."""

from collections.abc import Mapping, Sequence

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from factory_logs.api.http.exchange import find_exchange


class JsonResponse(Response):
    """A response whose body is already JSON text.

    Building Starlette's headers would cost more than the rest of a small response: see `python -m benchmarks.hot_path`.
    """

    content_type = (b"content-type", b"application/json")

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [self.content_type, (b"content-length", b"%d" % len(body))]
        if headers:
            self.raw_headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = find_exchange(send)
        if exchange is not None and exchange.respond(self.status_code, self.raw_headers, self.body):
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


class CsvResponse(JsonResponse):
    """A response whose body is CSV."""

    content_type = (b"content-type", b"text/csv; charset=utf-8")


class NoContentResponse(JsonResponse):
    """A 204, which has no body."""

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status_code = 204
        self.body = b""
        self.background = None
        self.raw_headers = list(headers)


def json_response(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with this content as JSON. An orjson.Fragment in it is already JSON text."""
    return JsonResponse(orjson.dumps(content), status, headers)


def created(body: bytes, collection: str, record_id: int, *, replayed: bool = False) -> Response:
    """Return the 201 for one record with the JSON text `body`, and with the URL of the record in `Location`."""
    response = JsonResponse(body, 201, REPLAYED if replayed else None)
    response.raw_headers.append((b"location", f"{collection}/{record_id}".encode("latin-1")))
    return response


REPLAYED = {"Idempotency-Replayed": "true"}
"""The header of a replayed response, which is sent to a retry with the same key
(docs/reference/http-api.md#idempotency)."""


def collection_url(scope: Scope) -> str:
    """Return the URL of the request as the client sees it, with host and path prefix, but without the query string."""
    return f"{scope['scheme']}://{_host(scope)}{scope['path']}"


def route_path(scope: Scope) -> str:
    """Return the path that routes are matched with: without the path prefix of a proxy."""
    path: str = scope["path"]
    root = scope.get("root_path")
    return path[len(root) :] if root else path


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            return str(value.decode("latin-1"))
    server = scope.get("server") or ("localhost", None)
    return f"{server[0]}:{server[1]}" if server[1] else str(server[0])


def record_id(text: str) -> int:
    """Return the id in a path, or 0 for text that is not an id. No record has the id 0
    (docs/reference/http-api.md#calls)."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0

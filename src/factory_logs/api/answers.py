"""JSON answers, with as little work as they need: they are on every hot path."""

from collections.abc import Mapping, Sequence

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

_JSON = (b"content-type", b"application/json")


class JsonAnswer(Response):
    """An answer whose body is JSON text already; Starlette's own headers cost more than the rest of a small answer."""

    def __init__(self, body: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.status_code = status
        self.body = body
        self.background = None
        self.raw_headers = [_JSON, (b"content-length", b"%d" % len(body))]
        if headers:
            self.raw_headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body})


class EmptyAnswer(JsonAnswer):
    """A 204, which has no body."""

    def __init__(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.status_code = 204
        self.body = b""
        self.background = None
        self.raw_headers = list(headers)


def json_answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer whose body is JSON. Text that is JSON already comes as orjson.Fragment and is not decoded."""
    return JsonAnswer(orjson.dumps(content), status, headers)


def created(content: object, scope: Scope, record_id: int, *, replayed: bool = False) -> Response:
    """The 201 of one record, with its URL under the collection that was posted to."""
    headers = {"Location": f"{collection_url(scope)}/{record_id}"}
    return json_answer(content, 201, headers | REPLAYED if replayed else headers)


REPLAYED = {"Idempotency-Replayed": "true"}
"""Marks the first answer of a write that was sent again (SPEC 7)."""


def collection_url(scope: Scope) -> str:
    """The URL that was asked, without its query, as the caller knows this service: by the Host header."""
    return f"{scope['scheme']}://{_host(scope)}{scope['path']}"


def _host(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            return str(value.decode("latin-1"))
    server = scope.get("server") or ("localhost", None)
    return f"{server[0]}:{server[1]}" if server[1] else str(server[0])

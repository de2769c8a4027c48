"""What surrounds every request: its id and its log line. Pure ASGI, as it is on every hot path."""

import re
import secrets
import time
from typing import Any

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from factory_logs.errors import TooLargeError

_log = structlog.get_logger("factory_logs.access")
_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class BodyLimit:
    """Refuses a body over `max_bytes` before it is read whole: by its Content-Length, else as it arrives (SPEC 7).

    The error is raised where the body is read, so it is answered like any other.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        announced = next((value for name, value in scope.get("headers", ()) if name == b"content-length"), b"0")
        received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if announced.isdigit() and int(announced) > self._max_bytes:
                raise self._too_large()
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        await self._app(scope, receive_within_limit, send)

    def _too_large(self) -> TooLargeError:
        return TooLargeError(f"The body is over the limit of {self._max_bytes} bytes")


class RequestContext:
    """Gives each request an id (the caller's `X-Request-ID` where it is sane), answers with it and logs one line."""

    def __init__(self, app: ASGIApp, access_log: bool) -> None:
        self._app = app
        self._access_log = access_log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        started = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", request_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        finally:
            if self._access_log:
                _log.info("request", **_line(scope, request_id, status, time.perf_counter() - started))


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _SANE_ID.fullmatch(value):
            return str(value.decode())
    return secrets.token_hex(8)


def _line(scope: Scope, request_id: str, status: int, seconds: float) -> dict[str, Any]:
    """What is logged: never a body, a query string or a header, as they may hold secrets."""
    route = scope.get("route")
    return {
        "request_id": request_id,
        "method": scope["method"],
        "route": getattr(route, "path", scope["path"]),
        "status": status,
        "ms": round(seconds * 1000, 2),
    }

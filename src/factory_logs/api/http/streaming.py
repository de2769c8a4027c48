"""Streamed responses: they end when the client disconnects or its token is revoked."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from factory_logs.api.http.content_coding import Encoder
from factory_logs.api.services import Services
from factory_logs.errors import DatabaseUnavailableError, ForbiddenError, UnauthenticatedError
from factory_logs.permissions import Level, check_permission

CHECK_SECONDS = 2.0
"""The interval between two checks of the token during a streamed response. A revoked token must stop working within 5
seconds (docs/reference/http-api.md#authentication)."""

DISCONNECT_CHECK_DELAY = 0.1

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class StreamResponse(Response):
    """Sends `first`, then each part when the generator produces it. Closes the generator when the client disconnects.

    If the client reads nothing for `send_seconds`, or the generator raises an error, the connection is aborted, so that
    the client does not take the received part for the complete response.
    """

    def __init__(
        self,
        first: bytes,
        parts: AsyncGenerator[bytes],
        media_type: str,
        send_seconds: float,
        headers: Mapping[str, str] | None = None,
        at_end: Callable[[], None] = lambda: None,
        encoder: Encoder | None = None,
    ) -> None:
        self.media_type = media_type
        self.status_code = 200
        self.background = None
        encoding = {} if encoder is None else {"Content-Encoding": encoder.name}
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no", **encoding, **(headers or {})})
        self._encoder = encoder
        self._first = first
        self._parts = parts
        self._send_seconds = send_seconds
        self._at_end = at_end

    def init_headers(self, headers: Any = None) -> None:
        super().init_headers(headers)
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.ensure_future(self._send_all(send))
        disconnect = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, disconnect), return_when=asyncio.FIRST_COMPLETED)
        finally:
            disconnect.cancel()
            sending.cancel()
            await asyncio.gather(sending, disconnect, return_exceptions=True)
            await self._parts.aclose()
            self._at_end()
        if not sending.cancelled() and (error := sending.exception()) is not None:
            # The error is not raised again: uvicorn aborts a response that is not complete.
            _log.error(
                "a streamed response was aborted", exc_info=error, route=getattr(scope.get("route"), "path", None)
            )

    async def _send_all(self, send: Send) -> None:
        try:
            await self._within(send({"type": "http.response.start", "status": 200, "headers": self.raw_headers}))
            if self._first:
                await self._send_part(send, self._first)
            async for part in self._parts:
                await self._send_part(send, part)
            end = b"" if self._encoder is None else self._encoder.finish()
            await self._within(send({"type": "http.response.body", "body": end, "more_body": False}))
        except _TooSlowError:
            _log.warning("the client of a streamed response is too slow; the connection was closed")

    async def _send_part(self, send: Send, part: bytes) -> None:
        if self._encoder is not None:
            part = await asyncio.to_thread(self._encoder.feed, part)
        await self._within(send({"type": "http.response.body", "body": part, "more_body": True}))

    async def _within(self, sending: Any) -> None:
        try:
            async with asyncio.timeout(self._send_seconds):
                await sending
        except TimeoutError:
            raise _TooSlowError from None


class _TooSlowError(Exception):
    """The client has read nothing for `send_seconds`."""


async def cancel_on_disconnect(receive: Receive, work: Awaitable[T]) -> T:
    """Return the result of the work. If the client disconnects first, cancel the work and raise ClientDisconnect.

    The connection is watched only after DISCONNECT_CHECK_DELAY seconds. Most pages are ready earlier, and need no task
    that watches.
    """
    watches: list[asyncio.Task[None]] = []
    try:
        async with asyncio.timeout(None) as present:

            def watch() -> None:
                watches.append(asyncio.create_task(_end_on_disconnect(receive, present)))

            looking = asyncio.get_running_loop().call_later(DISCONNECT_CHECK_DELAY, watch)
            try:
                return await work
            finally:
                looking.cancel()
                for watching in watches:
                    watching.cancel()
    except TimeoutError:
        if present.expired():
            raise ClientDisconnect from None
        raise


async def _end_on_disconnect(receive: Receive, present: asyncio.Timeout) -> None:
    await _disconnected(receive)
    present.reschedule(asyncio.get_running_loop().time())


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class TokenCheck:
    """Checks repeatedly whether the token of a long response is still valid."""

    def __init__(self, request: Request, services: Services) -> None:
        self._authorization = request.headers.get("authorization")
        self._services = services
        self.due_at = time.monotonic() + CHECK_SECONDS

    async def __call__(self) -> bool:
        """Return whether the token still allows reading. The result is at most CHECK_SECONDS old."""
        if time.monotonic() < self.due_at:
            return True
        self.due_at = time.monotonic() + CHECK_SECONDS
        try:
            check_permission(await self._services.authenticator.authenticate(self._authorization), Level.OVERVIEW)
        except (UnauthenticatedError, ForbiddenError):
            return False
        except DatabaseUnavailableError:
            pass
        return True

"""Answers of no known length, sent part by part as their reader takes them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog
from fastapi import Request
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from factory_logs.api.compression import Encoder
from factory_logs.api.services import Services
from factory_logs.errors import DatabaseUnavailableError, ForbiddenError, UnauthenticatedError
from factory_logs.security.levels import Level
from factory_logs.security.permission import check

CHECK_SECONDS = 2.0
"""How often a reader's token is looked at again: a revoked one must stop working within 5 seconds (SPEC 3)."""

LOOK_SECONDS = 0.1

T = TypeVar("T")

_log = structlog.get_logger(__name__)


class Stream(Response):
    """Sends the first part, which is there already, and the others as they come; closes them when the reader has gone.

    A reader that takes none of them for `send_seconds` is left. Where the parts fail, or the reader is left, the
    connection is broken off, so that nobody takes what has come for the whole.
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
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            sending.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)
            await self._parts.aclose()
            self._at_end()
        if not sending.cancelled() and (error := sending.exception()) is not None:
            # Not raised: the server breaks off an answer that is left without its end.
            _log.error("a stream was broken off", exc_info=error, route=getattr(scope.get("route"), "path", None))

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
            _log.warning("a reader of a stream is too slow and was left")

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
    """The reader has taken nothing for too long."""


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """What the work gives. Raises ClientDisconnect, with the work cancelled, where the caller goes away before.

    Nobody looks for that before LOOK_SECONDS: most pages are there by then, and need no tasks for that.
    """
    watches: list[asyncio.Task[None]] = []
    try:
        async with asyncio.timeout(None) as present:

            def watch() -> None:
                watches.append(asyncio.create_task(_end_when_gone(receive, present)))

            looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, watch)
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


async def _end_when_gone(receive: Receive, present: asyncio.Timeout) -> None:
    await _disconnected(receive)
    present.reschedule(asyncio.get_running_loop().time())


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class StillAllowed:
    """Looks again at the token of a request that is answered for long."""

    def __init__(self, request: Request, services: Services) -> None:
        self._authorization = request.headers.get("authorization")
        self._services = services
        self.due_at = time.monotonic() + CHECK_SECONDS

    async def __call__(self) -> bool:
        """Whether the caller may still read, by what was known within CHECK_SECONDS."""
        if time.monotonic() < self.due_at:
            return True
        self.due_at = time.monotonic() + CHECK_SECONDS
        try:
            check(await self._services.authenticator.authenticate(self._authorization), Level.OVERVIEW)
        except (UnauthenticatedError, ForbiddenError):
            return False
        except DatabaseUnavailableError:
            pass
        return True

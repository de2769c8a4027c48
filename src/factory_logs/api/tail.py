"""`GET /v1/factory_logs/tail`: new logs as they come, as server-sent events."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import structlog
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from factory_logs.api.deps import Reader, ServicesDep
from factory_logs.api.direct import DirectRoute
from factory_logs.api.openapi import errors
from factory_logs.api.services import Services
from factory_logs.errors import BadRequestError, DatabaseUnavailableError, ForbiddenError, UnauthenticatedError
from factory_logs.query import FACTORY_LOGS, Limits, Query, parse_query
from factory_logs.security.levels import Level
from factory_logs.security.permission import check

CHECK_SECONDS = 2.0
"""How often a follower's token is looked at again: a revoked one must stop working within 5 seconds (SPEC 3)."""
RECONNECT = b"retry: 2000\n\n"

_log = structlog.get_logger(__name__)
_EXAMPLE = 'id: 42\ndata: {"factory_log_id":42,"app_name":"tiger_test_jig_production"}\n\n'
_EVENT = {
    "type": "object",
    "description": "One event of the stream",
    "properties": {
        "id": {"type": "string", "description": "Of the log, or how far the stream has come"},
        "data": {"type": "string", "description": "The log, as one line of JSON"},
    },
}
_LAST_EVENT_ID = "Go on after this id, as the `id` of the last event had it; 0 for all logs. Without it: from now on"

router = APIRouter(prefix="/v1/factory_logs", tags=["factory logs"])


async def tail_factory_logs(request: Request, _: Reader, services: ServicesDep) -> Response:
    """New logs that `q` selects, by id, as server-sent events: `id` is the log's, `data` the log as one line of JSON.

    Each is sent at least once and none is skipped: a reader that comes back with the `Last-Event-ID` it has seen goes
    on there. An event without data moves that id on while nothing matches. `q` may hold `filters` only.
    """
    query = _query(request, services)
    start = _last_event_id(request)
    services.tail.join()
    try:
        cursor = await services.tail.newest() if start is None else start
    except BaseException:
        services.tail.leave()
        raise
    return EventStream(_events(request, services, query, cursor), services)


router.add_api_route(
    "/tail",
    tail_factory_logs,
    methods=["GET"],
    response_class=Response,
    route_class_override=DirectRoute,
    responses={
        **errors(400, 401, 403, 503),
        200: {
            "description": "The events, until either side ends the connection",
            "content": {"text/event-stream": {"schema": _EVENT, "example": _EXAMPLE}},
        },
    },
    openapi_extra={
        "parameters": [
            {"name": "q", "in": "query", "required": False},  # described by api/query_schema.py
            *(
                {"name": name, "in": place, "required": False, "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
                 "description": _LAST_EVENT_ID}
                for name, place in (("Last-Event-ID", "header"), ("last_event_id", "query"))
            ),
        ]
    },
)  # fmt: skip


async def _events(request: Request, services: Services, query: Query, cursor: int) -> AsyncIterator[bytes]:
    """The stream's parts, until the service stops, the token ends, or the connection has lasted long enough."""
    settings, tail = services.settings, services.tail
    now = time.monotonic()
    end, check_at, beat_at = now + settings.tail_max_seconds, now + CHECK_SECONDS, now + settings.tail_heartbeat_seconds
    yield RECONNECT + b": start\nid: %d\n\n" % cursor  # so that who is cut off before the first log skips none
    while (now := time.monotonic()) < end and not services.stopping.is_set():
        if now >= check_at:
            if not await _is_still_allowed(request, services):
                return
            check_at = now + CHECK_SECONDS
        records, cursor = await _next(services, cursor, query)
        if records:
            yield "".join(f"id: {log_id}\ndata: {log}\n\n" for log_id, log in records).encode()
        elif now >= beat_at:
            yield b": heartbeat\nid: %d\n\n" % cursor
        else:
            await _wait(services, tail.changed(cursor), min(end, check_at, beat_at) - now)
            continue
        beat_at = now + settings.tail_heartbeat_seconds


async def _next(services: Services, cursor: int, query: Query) -> tuple[list[tuple[int, str]], int]:
    try:
        return await services.tail.after(cursor, query)
    except DatabaseUnavailableError:
        return [], cursor  # the follower keeps its place until the database is back


async def _wait(services: Services, change: Any, seconds: float) -> None:
    """Wait for the change or the service's stop, at most so long."""
    waits = [asyncio.ensure_future(change), asyncio.ensure_future(services.stopping.wait())]
    try:
        await asyncio.wait(waits, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


async def _is_still_allowed(request: Request, services: Services) -> bool:
    try:
        user = await services.authenticator.authenticate(request.headers.get("authorization"))
        check(user, Level.OVERVIEW)
    except (UnauthenticatedError, ForbiddenError):
        return False
    except DatabaseUnavailableError:
        pass
    return True


class EventStream(Response):
    """Sends the parts as they come. A reader that takes none of them for `tail_send_seconds` is left."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncIterator[bytes], services: Services) -> None:
        self._parts = parts
        self._services = services
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-store", "X-Accel-Buffering": "no"})

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
            self._services.tail.leave()
            await asyncio.gather(sending, gone, return_exceptions=True)
        if not sending.cancelled() and (error := sending.exception()) is not None:
            raise error

    async def _send_all(self, send: Send) -> None:
        try:
            await self._within(send({"type": "http.response.start", "status": 200, "headers": self.raw_headers}))
            async for part in self._parts:
                await self._within(send({"type": "http.response.body", "body": part, "more_body": True}))
            await self._within(send({"type": "http.response.body", "body": b"", "more_body": False}))
        except TimeoutError:
            _log.warning("a follower of new logs is too slow and was left")

    async def _within(self, sending: Any) -> None:
        async with asyncio.timeout(self._services.settings.tail_send_seconds):
            await sending


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _query(request: Request, services: Services) -> Query:
    """Raises BadRequestError for a bad `q`, and for one with more than filters."""
    settings = services.settings
    text = parse_qs(request.scope["query_string"].decode("latin-1"), keep_blank_values=True).get("q", [None])[0]
    query = parse_query(
        text, FACTORY_LOGS, Limits(settings.max_filter_depth, settings.max_filter_nodes, settings.max_in_values)
    )
    if query != Query(filters=query.filters):
        raise BadRequestError("Unable to construct query: following new logs takes filters only; leave out the rest")
    return query


def _last_event_id(request: Request) -> int | None:
    """The header goes before the parameter: a browser sends it when it comes back. Raises BadRequestError."""
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadRequestError(f"Last-Event-ID must be the id of a log, not {text[:30]!r}")
    return int(text)

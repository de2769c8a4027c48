"""`GET /v1/factory_logs/tail`: new logs as they are stored, as server-sent events (docs/reference/http-api.md).

querier/tail.py finds the new logs; client/tail_stream.py reads the events.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.asgi.fast_routes import FastRoute
from factory_logs.api.dependencies import Reader, ServicesDep
from factory_logs.api.http.streaming import StreamResponse, TokenCheck
from factory_logs.api.openapi.document import errors
from factory_logs.api.services import Services
from factory_logs.errors import BadRequestError, DatabaseUnavailableError
from factory_logs.query import FACTORY_LOGS, Query, parse_query

RECONNECT = b"retry: 2000\n\n"
BEYOND = " at the newest log, because no log has the Last-Event-ID that was sent or a higher id"
AGAIN = (
    b": start at the newest log, because no log has the id up to which the stream had read or a higher id\nid: %d\n\n"
)

_EXAMPLE = 'id: 42\ndata: {"factory_log_id":42,"app_name":"tiger_test_jig_production"}\n\n'
_EVENT = {
    "type": "object",
    "description": "One event of the stream",
    "properties": {
        "id": {"type": "string", "description": "The id of the log, or the id up to which the stream has read"},
        "data": {"type": "string", "description": "The log, as one line of JSON"},
    },
}
_LAST_EVENT_ID = (
    "Continue after this id, which is the `id` of the last event; 0 for all logs. Without it, or if it is above the id "
    "of the newest log, the stream begins with new logs"
)

router = APIRouter(prefix="/v1/factory_logs", tags=["factory logs"])


async def tail_factory_logs(request: Request, _: Reader, services: ServicesDep) -> Response:
    """Send new logs that `q` selects, ordered by id, as server-sent events. `data` is the log as one line of JSON.

    Each log is sent at least once and none is skipped: a client that reconnects with the last `Last-Event-ID` continues
    after it. While no log matches, events without data advance the id. `q` may contain `filters` only.
    """
    query = _query(request, services)
    start = _last_event_id(request)
    services.tail.join()
    try:
        cursor = await (services.tail.newest() if start is None else services.tail.after_last(start))
    except BaseException:
        services.tail.leave()
        raise
    events = _events(request, services, query, cursor)
    note = BEYOND if start is not None and start > cursor else ""
    # The first event has an id, so that a client that is disconnected before the first log skips none.
    first = RECONNECT + f": start{note}\nid: {cursor}\n\n".encode()
    return StreamResponse(
        first, events, "text/event-stream", services.settings.tail_send_seconds, at_end=services.tail.leave
    )


router.add_api_route(
    "/tail",
    tail_factory_logs,
    methods=["GET"],
    response_class=Response,
    route_class_override=FastRoute,
    responses={
        **errors(400, 401, 403, 503),
        200: {
            "description": "The events, until either side ends the connection",
            "content": {"text/event-stream": {"schema": _EVENT, "example": _EXAMPLE}},
        },
    },
    openapi_extra={
        "parameters": [
            {"name": "q", "in": "query", "required": False},  # api/openapi/q_parameter.py adds its schema
            *(
                {"name": name, "in": where, "required": False, "schema": {"type": "string", "pattern": "^[0-9]{1,18}$"},
                 "description": _LAST_EVENT_ID}
                for name, where in (("Last-Event-ID", "header"), ("last_event_id", "query"))
            ),
        ]
    },
)  # fmt: skip


async def _events(request: Request, services: Services, query: Query, cursor: int) -> AsyncGenerator[bytes]:
    """Yield the parts of the stream until the service stops, the token ends, or the time limit is reached."""
    settings, tail = services.settings, services.tail
    now = time.monotonic()
    end, beat_at = now + settings.tail_max_seconds, now + settings.tail_heartbeat_seconds
    is_still_allowed = TokenCheck(request, services)
    while (now := time.monotonic()) < end and not services.stopping.is_set():
        if not await is_still_allowed():
            return
        here = tail.on_this_server(cursor)
        if here < cursor:
            cursor = here
            yield AGAIN % cursor
        records, cursor = await _next(services, cursor, query)
        if records:
            yield "".join(f"id: {log_id}\ndata: {log}\n\n" for log_id, log in records).encode()
        elif now >= beat_at:
            yield b": heartbeat\nid: %d\n\n" % cursor
        else:
            await _wait(services, tail.changed(cursor), min(end, is_still_allowed.due_at, beat_at) - now)
            continue
        beat_at = now + settings.tail_heartbeat_seconds


async def _next(services: Services, cursor: int, query: Query) -> tuple[list[tuple[int, str]], int]:
    try:
        return await services.tail.after(cursor, query)
    except DatabaseUnavailableError:
        return [], cursor  # the stream continues from here when the database is available again


async def _wait(services: Services, change: Any, seconds: float) -> None:
    """Wait up to `seconds` for the change, or for the stop of the service."""
    waits = [asyncio.ensure_future(change), asyncio.ensure_future(services.stopping.wait())]
    try:
        await asyncio.wait(waits, timeout=max(0.0, seconds), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


def _query(request: Request, services: Services) -> Query:
    """Return the query. Raises BadRequestError if `q` is invalid or contains more than filters."""
    text = parse_qs(request.scope["query_string"].decode("latin-1"), keep_blank_values=True).get("q", [None])[0]
    query = parse_query(text, FACTORY_LOGS, services.query_limits)
    if query != Query(filters=query.filters):
        raise BadRequestError("Unable to construct query: a tail accepts only filters; leave out the other members")
    return query


def _last_event_id(request: Request) -> int | None:
    """Return the id after which the stream begins, or None. Raises BadRequestError.

    The header takes precedence over the parameter: browsers send the header when they reconnect.
    """
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise BadRequestError(f"Last-Event-ID must be the id of a log, not {text[:30]!r}")
    return int(text)

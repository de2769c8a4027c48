"""`Accept: application/x-ndjson` and `text/csv`: all that `q` selects as one stream (SPEC 5)."""

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from fastapi import Request
from starlette.responses import Response

from factory_logs.api.accepting import preferred
from factory_logs.api.compression import VARY, encoder
from factory_logs.api.services import Services
from factory_logs.api.streams import StillAllowed, Stream, unless_gone
from factory_logs.errors import UnauthenticatedError
from factory_logs.query import Query, Resource
from factory_logs.reading.exports import ExportFormat

_FORMATS = {export_format.value: export_format for export_format in ExportFormat}
_ELSE = ("application/json", "application/*", "*/*")


def export_format(request: Request) -> ExportFormat | None:
    """The format that the caller prefers; None for JSON, which answers any other `Accept` as well."""
    return _FORMATS.get(preferred(request.headers.get("accept", ""), [*_ELSE, *_FORMATS]) or "")


async def answer_export(
    request: Request, query: Query, resource: Resource, chosen: ExportFormat, services: Services
) -> Response:
    """The stream. It begins when the first rows are there, so what fails before is answered as any error is."""
    settings = services.settings
    text = services.exports.parts(query, resource, chosen)
    parts = watched(text, StillAllowed(request, services), settings.export_max_seconds)
    try:
        first = await unless_gone(request.receive, anext(parts, b""))
    except BaseException:
        await parts.aclose()
        raise
    return Stream(first, parts, chosen.value, settings.export_send_seconds, VARY, encoder=encoder(request))


async def watched(
    text: AsyncGenerator[str], is_still_allowed: Callable[[], Awaitable[bool]], seconds: float
) -> AsyncGenerator[bytes]:
    """The parts. Raises ExportBrokenOffError so long after the first one, UnauthenticatedError when the token ends."""
    end = math.inf
    async with aclosing(text) as parts:
        async for part in parts:
            now = time.monotonic()
            if now >= end:
                raise ExportBrokenOffError("it takes longer than it may")
            end = min(end, now + seconds)
            if not await is_still_allowed():
                raise UnauthenticatedError("The token is unknown, revoked or expired.")
            yield part.encode()


class ExportBrokenOffError(Exception):
    """An export has taken so long that it ends before its end."""

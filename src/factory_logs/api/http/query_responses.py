"""The four kinds of response to a query for records.

| request | response | function |
|---|---|---|
| `Accept: application/x-ndjson` or `text/csv` | all records as one stream | `export_response` |
| `single` in `q` | the one record | `single_response` |
| `cursor` | a page by cursor | `cursor_response` (pagination.py) |
| anything else | a page by number | `page_response` (pagination.py) |
"""

import math
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

from fastapi import Request
from starlette.responses import Response

from factory_logs.api.http.content_coding import VARY, encoder, preferred
from factory_logs.api.http.pagination import cursor_response, page_request, page_response
from factory_logs.api.http.responses import JsonResponse, collection_url
from factory_logs.api.http.streaming import StreamResponse, TokenCheck, cancel_on_disconnect
from factory_logs.api.services import Services
from factory_logs.errors import (
    NOT_AUTHENTICATED,
    BadRequestError,
    FieldError,
    NotFoundError,
    QueryTooLongError,
    UnauthenticatedError,
)
from factory_logs.querier.exports import ExportFormat
from factory_logs.query import Query, Resource, compile_rows, index_advice_for, parse_query
from factory_logs.query.parameters import ESCAPE_FORMULAS, boolean


async def query_response(request: Request, resource: Resource, services: Services) -> Response:
    """Return the records that `q` selects, in the form that the request selects."""
    query = parse_query(request.query_params.get("q"), resource, services.query_limits)
    try:
        return await _respond(request, query, resource, services)
    except QueryTooLongError as error:
        raise error.with_advice(index_advice_for(query, resource)) from error


async def _respond(request: Request, query: Query, resource: Resource, services: Services) -> Response:
    chosen = export_format(request)
    if chosen is not None and not query.single:
        return await export_response(request, query, resource, chosen, services)
    paging = page_request(request, services.settings)
    if paging.cursor is not None:
        return await cursor_response(request, query, resource, paging, paging.cursor, services)
    if query.single:
        return await single_response(request, query, resource, services)
    return await page_response(request, query, resource, paging, services)


async def single_response(request: Request, query: Query, resource: Resource, services: Services) -> Response:
    """Return the single record that `q` selects. Raises NotFoundError for no record, BadRequestError for several."""
    finding = services.records(resource).found(compile_rows(query, resource).limit(2))
    found = await cancel_on_disconnect(request.receive, finding)
    if not found:
        raise NotFoundError("No result found")
    if len(found) > 1:
        raise BadRequestError("Multiple results found")
    ((found_id, record),) = found
    return JsonResponse(record.encode(), headers={"Location": f"{collection_url(request.scope)}/{found_id}"})


_FORMATS = {export_format.value: export_format for export_format in ExportFormat}
_ELSE = ("application/json", "application/*", "*/*")


def export_format(request: Request) -> ExportFormat | None:
    """Return the export format that the client prefers, or None for JSON, which is also the default."""
    return _FORMATS.get(preferred(request.headers.get("accept", ""), [*_ELSE, *_FORMATS]) or "")


async def export_response(
    request: Request, query: Query, resource: Resource, chosen: ExportFormat, services: Services
) -> Response:
    """Return an export as a stream. The response begins after the first rows are read, so an error before that is an
    ordinary error response."""
    settings = services.settings
    escape_formulas = asks_to_escape_formulas(request)
    text = services.exports.parts(query, resource, chosen, escape_formulas=escape_formulas)
    parts = checked_parts(text, TokenCheck(request, services), settings.export_max_seconds)
    try:
        first = await cancel_on_disconnect(request.receive, anext(parts, b""))
    except BaseException:
        await parts.aclose()
        raise
    return StreamResponse(first, parts, chosen.value, settings.export_send_seconds, VARY, encoder=encoder(request))


def asks_to_escape_formulas(request: Request) -> bool:
    """Return the value of `escape_formulas` in the query string. Raises BadRequestError unless it is true or false."""
    try:
        return boolean(request.query_params.get(ESCAPE_FORMULAS))
    except ValueError as error:
        raise BadRequestError("Validation failed", [FieldError(ESCAPE_FORMULAS, str(error))]) from None


async def checked_parts(
    text: AsyncGenerator[str], is_still_allowed: Callable[[], Awaitable[bool]], seconds: float
) -> AsyncGenerator[bytes]:
    """Yield the parts as bytes. Raises ExportBrokenOffError after `seconds`, UnauthenticatedError if the token is
    revoked."""
    end = math.inf
    async with aclosing(text) as parts:
        async for part in parts:
            now = time.monotonic()
            if now >= end:
                raise ExportBrokenOffError("it took longer than FACTORY_LOGS_EXPORT_MAX_SECONDS")
            end = min(end, now + seconds)
            if not await is_still_allowed():
                raise UnauthenticatedError(NOT_AUTHENTICATED)
            yield part.encode()


class ExportBrokenOffError(Exception):
    """An export took longer than its limit."""

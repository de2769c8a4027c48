"""Pages by number (docs/reference/http-api.md#pages) and by cursor (docs/reference/http-api.md#cursors).

A cursor is a text that marks a position in the order of the records. It is opaque to the client, belongs to one `q` and
has a checksum. A forged cursor gives no access: a cursor contains five numbers, and none of them selects records
outside `q`.
"""

import base64
import binascii
import hashlib
import re
import struct
from dataclasses import astuple, dataclass
from math import ceil
from urllib.parse import quote_plus, urlencode

from fastapi import Request
from starlette.responses import Response

from factory_logs.api.http.content_coding import compressed
from factory_logs.api.http.responses import collection_url
from factory_logs.api.http.streaming import cancel_on_disconnect
from factory_logs.api.services import Services
from factory_logs.errors import BadRequestError
from factory_logs.querier.pages import CursorPosition, read_cursor_page
from factory_logs.query import FACTORY_LOGS, LARGEST_COUNT, Query, Resource
from factory_logs.settings import Settings

_POSITIVE = re.compile(r"0*[1-9][0-9]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The page that a request selects. `page` starts at 1, `size` is the number of records, and an empty `cursor` means
    the first page."""

    cursor: str | None
    page: int
    size: int

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.size


def page_request(request: Request, settings: Settings) -> PageRequest:
    """Return the page that the query string selects.

    Raises BadRequestError if `page` is not a positive integer, or is given together with a cursor.
    """
    parameters = request.query_params
    page = parameters.get("page")
    if page is not None and not _POSITIVE.fullmatch(page):
        raise BadRequestError(f"page must be a positive int, not {page[:50]!r}")
    cursor = parameters.get("cursor")
    if cursor is not None and page is not None:
        raise BadRequestError("Either page or cursor: with a cursor, the header Link leads to the next page")
    return PageRequest(cursor, int(page or 1), _page_size(parameters.get("results_per_page"), settings))


def _page_size(text: str | None, settings: Settings) -> int:
    if text is None or not _POSITIVE.fullmatch(text):
        return settings.default_results_per_page
    return min(int(text), settings.max_results_per_page)


async def page_response(
    request: Request, query: Query, resource: Resource, paging: PageRequest, services: Services
) -> Response:
    """Return the page, with links to the next and the last page."""
    reading = services.pages.read(query, resource, paging.offset, paging.size)
    total, objects = await cancel_on_disconnect(request.receive, reading)
    body = page_body(total, paging.page, paging.size, objects)
    links = _links(request, paging, ceil(total / paging.size))
    return await compressed(request, body, services.settings, {"Link": links})


def page_body(total: int, page: int, size: int, objects: str) -> bytes:
    head = f'{{"num_results":{total},"total_pages":{ceil(total / size)},"page":{page},"objects":['
    return f"{head}{objects}]}}".encode()


def _links(request: Request, paging: PageRequest, pages: int) -> str:
    links = [(max(pages, 1), "last")]
    if paging.page < pages:
        links.insert(0, (paging.page + 1, "next"))
    url = url_up_to(request, "page")
    return ", ".join(f'<{url}{page}&results_per_page={paging.size}>; rel="{rel}"' for page, rel in links)


def url_up_to(request: Request, name: str) -> str:
    """Return the URL of the request up to the value that selects another page: `...&page=` or `...&cursor=`."""
    others = [pair for pair in request.query_params.multi_items() if pair[0] not in (name, "results_per_page")]
    return f"{collection_url(request.scope)}?{urlencode([*others, (name, '')])}"


_NUMBERS = struct.Struct(">5q")
_DIGEST_BYTES = 8
_UNKNOWN = "The cursor is not one that this service gave; begin again with an empty one: ?cursor="
LENGTH = len(base64.urlsafe_b64encode(bytes(_NUMBERS.size + 2 * _DIGEST_BYTES)).rstrip(b"="))


async def cursor_response(
    request: Request,
    query: Query,
    resource: Resource,
    paging: PageRequest,
    cursor: str,
    services: Services,
) -> Response:
    """Return the page at the cursor. The response contains a link to the next page unless this is the last page."""
    counts = services.counts if resource is FACTORY_LOGS else None
    position = read_cursor(cursor, query) if cursor else None
    reading = read_cursor_page(services.records(resource), counts, query, resource, position, paging.size)
    page = await cancel_on_disconnect(request.receive, reading)
    body = page_body(page.total, page.page, paging.size, page.objects)
    headers = None
    if page.position is not None:
        text = quote_plus(write_cursor(page.position, query))
        url = url_up_to(request, "cursor")
        headers = {"Link": f'<{url}{text}&results_per_page={paging.size}>; rel="next"'}
    return await compressed(request, body, services.settings, headers)


def write_cursor(position: CursorPosition, query: Query) -> str:
    """Return the cursor for a position in the records of `query`."""
    body = _NUMBERS.pack(*astuple(position)) + _digest(repr(query).encode())
    return base64.urlsafe_b64encode(body + _digest(body)).rstrip(b"=").decode()


def read_cursor(text: str, query: Query) -> CursorPosition:
    """Return the position that a cursor marks. Raises BadRequestError if it is invalid or belongs to another `q`."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    body, checksum = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    if len(text) != LENGTH or _digest(body) != checksum:
        raise BadRequestError(_UNKNOWN)
    if body[_NUMBERS.size :] != _digest(repr(query).encode()):
        raise BadRequestError("The cursor belongs to another q; use the same q for all pages")
    numbers = _NUMBERS.unpack(body[: _NUMBERS.size])
    if not all(-1 <= number <= LARGEST_COUNT for number in numbers):
        raise BadRequestError(_UNKNOWN)
    return CursorPosition(*numbers)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()

"""`q`, `page` and `results_per_page` of a request, and the page that answers them (SPEC 4)."""

import re
from dataclasses import dataclass
from math import ceil
from urllib.parse import quote_plus, urlencode

from fastapi import Request
from starlette.responses import Response

from factory_logs.api.answers import JsonAnswer, collection_url
from factory_logs.api.compression import compressed
from factory_logs.api.cursors import read_cursor, write_cursor
from factory_logs.api.exports import answer_export, export_format
from factory_logs.api.services import Services
from factory_logs.api.streams import unless_gone
from factory_logs.db.records import RecordRepository
from factory_logs.errors import BadRequestError, NotFoundError, QueryTooLongError
from factory_logs.query import FACTORY_LOGS, Limits, Query, Resource, compile_rows, parse_query, what_to_narrow
from factory_logs.reading.walks import step
from factory_logs.settings import Settings

_POSITIVE = re.compile(r"0*[1-9][0-9]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a caller asks for. `page` starts at 1; `size` is in records; an empty `cursor` begins a walk."""

    cursor: str | None
    page: int
    size: int

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.size


def page_request(request: Request, settings: Settings) -> PageRequest:
    """Raises BadRequestError where `page` is not a positive int, or is there beside a cursor."""
    asked = request.query_params
    page = asked.get("page")
    if page is not None and not _POSITIVE.fullmatch(page):
        raise BadRequestError(f"page must be a positive int, not {page[:50]!r}")
    cursor = asked.get("cursor")
    if cursor is not None and page is not None:
        raise BadRequestError("Either page or cursor: a walk by cursor goes from page to page by itself")
    return PageRequest(cursor, int(page or 1), _page_size(asked.get("results_per_page"), settings))


def _page_size(text: str | None, settings: Settings) -> int:
    if text is None or not _POSITIVE.fullmatch(text):
        return settings.default_results_per_page
    return min(int(text), settings.max_results_per_page)


def query_limits(settings: Settings) -> Limits:
    """How much one `q` may ask for."""
    return Limits(settings.max_filter_depth, settings.max_filter_nodes, settings.max_in_values)


async def answer_query(request: Request, resource: Resource, records: RecordRepository, services: Services) -> Response:
    """What a request asks for: a page, a step of a walk, with `single` the record, or by `Accept` a whole export."""
    query = parse_query(request.query_params.get("q"), resource, query_limits(services.settings))
    try:
        return await _answer(request, query, resource, records, services)
    except QueryTooLongError as error:
        raise error.saying(what_to_narrow(query, resource)) from error


async def _answer(
    request: Request, query: Query, resource: Resource, records: RecordRepository, services: Services
) -> Response:
    chosen = export_format(request)
    if chosen is not None and not query.single:
        return await answer_export(request, query, resource, chosen, services)
    paging = page_request(request, services.settings)
    if query.single and paging.cursor is None:
        found = await unless_gone(request.receive, records.found(compile_rows(query, resource).limit(2)))
        return _single(request, found)
    if paging.cursor is not None:
        counts = services.counts if resource is FACTORY_LOGS else None
        position = read_cursor(paging.cursor, query) if paging.cursor else None
        walking = step(records, counts, query, resource, position, paging.size)
        walked = await unless_gone(request.receive, walking)
        link = None if walked.position is None else _next_link(request, paging, write_cursor(walked.position, query))
        body = _page(walked.total, walked.page, paging.size, walked.objects)
        return await compressed(request, body, services.settings, None if link is None else {"Link": link})
    reading = services.pages.read(query, resource, paging.offset, paging.size)
    total, objects = await unless_gone(request.receive, reading)
    body = _page(total, paging.page, paging.size, objects)
    links = _links(request, paging, ceil(total / paging.size))
    return await compressed(request, body, services.settings, {"Link": links})


def _page(total: int, page: int, size: int, objects: str) -> bytes:
    head = f'{{"num_results":{total},"total_pages":{ceil(total / size)},"page":{page},"objects":['
    return f"{head}{objects}]}}".encode()


def _single(request: Request, found: list[tuple[int, str]]) -> Response:
    if not found:
        raise NotFoundError("No result found")
    if len(found) > 1:
        raise BadRequestError("Multiple results found")
    ((record_id, record),) = found
    return JsonAnswer(record.encode(), headers={"Location": f"{collection_url(request.scope)}/{record_id}"})


def record_id(text: str) -> int:
    """The id in a path; text that is no id is the id of no record (SPEC 2)."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def _links(request: Request, paging: PageRequest, pages: int) -> str:
    links = [(max(pages, 1), "last")]
    if paging.page < pages:
        links.insert(0, (paging.page + 1, "next"))
    url = _url_up_to(request, "page")
    return ", ".join(f'<{url}{page}&results_per_page={paging.size}>; rel="{rel}"' for page, rel in links)


def _next_link(request: Request, paging: PageRequest, cursor: str) -> str:
    return f'<{_url_up_to(request, "cursor")}{quote_plus(cursor)}&results_per_page={paging.size}>; rel="next"'


def _url_up_to(request: Request, name: str) -> str:
    """The URL that was asked, as far as to where another page is named: `...&page=` or `...&cursor=`."""
    others = [pair for pair in request.query_params.multi_items() if pair[0] not in (name, "results_per_page")]
    return f"{collection_url(request.scope)}?{urlencode([*others, (name, '')])}"

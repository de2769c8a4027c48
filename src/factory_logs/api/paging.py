"""`q`, `page` and `results_per_page` of a request, and the page that answers them (SPEC 4)."""

import re
from dataclasses import dataclass
from math import ceil
from urllib.parse import urlencode

from fastapi import Request
from starlette.responses import Response

from factory_logs.api.answers import JsonAnswer, collection_url
from factory_logs.api.services import Services
from factory_logs.db.records import RecordRepository
from factory_logs.errors import BadRequestError, NotFoundError
from factory_logs.query import FACTORY_LOGS, Limits, Resource, compile_rows, parse_query
from factory_logs.reading.pages import read_page
from factory_logs.settings import Settings

_POSITIVE = re.compile(r"0*[1-9][0-9]{0,99}", re.ASCII)


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a caller asks for. `page` starts at 1; `size` is in records."""

    q: str | None
    page: int
    size: int

    @property
    def offset(self) -> int:
        return (self.page - 1) * self.size


def page_request(request: Request, settings: Settings) -> PageRequest:
    """Raises BadRequestError where `page` is not a positive int."""
    asked = request.query_params
    page = asked.get("page")
    if page is not None and not _POSITIVE.fullmatch(page):
        raise BadRequestError(f"page must be a positive int, not {page[:50]!r}")
    return PageRequest(asked.get("q"), int(page or 1), _page_size(asked.get("results_per_page"), settings))


def _page_size(text: str | None, settings: Settings) -> int:
    if text is None or not _POSITIVE.fullmatch(text):
        return settings.default_results_per_page
    return min(int(text), settings.max_results_per_page)


def query_limits(settings: Settings) -> Limits:
    """How much one `q` may ask for."""
    return Limits(settings.max_filter_depth, settings.max_filter_nodes, settings.max_in_values)


async def answer_query(request: Request, resource: Resource, records: RecordRepository, services: Services) -> Response:
    """The page, or with `single` the record, that a request asks for."""
    paging = page_request(request, services.settings)
    query = parse_query(paging.q, resource, query_limits(services.settings))
    if query.single:
        return _single(request, await records.found(compile_rows(query, resource).limit(2)))
    counts = services.counts if resource is FACTORY_LOGS else None
    total, objects = await read_page(records, counts, query, resource, paging.offset, paging.size)
    pages = ceil(total / paging.size)
    head = f'{{"num_results":{total},"total_pages":{pages},"page":{paging.page},"objects":['
    return JsonAnswer(f"{head}{objects}]}}".encode(), headers={"Link": _links(request, paging, pages)})


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
    return ", ".join(f'<{_page_url(request, page, paging.size)}>; rel="{rel}"' for page, rel in links)


def _page_url(request: Request, page: int, size: int) -> str:
    others = [pair for pair in request.query_params.multi_items() if pair[0] not in ("page", "results_per_page")]
    query = urlencode([*others, ("page", page), ("results_per_page", size)])
    return f"{collection_url(request.scope)}?{query}"

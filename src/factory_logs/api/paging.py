"""`q`, `page` and `results_per_page` of a request, and the page that answers them (SPEC 4)."""

import re
from dataclasses import dataclass
from math import ceil
from typing import Annotated, Any
from urllib.parse import urlencode

import orjson
from fastapi import Depends, Query, Request
from starlette.responses import Response

from factory_logs.api.answers import json_answer
from factory_logs.api.deps import ServicesDep
from factory_logs.db.records import RecordRepository
from factory_logs.errors import BadRequestError, NotFoundError
from factory_logs.query import Limits, Resource, compile_count, compile_rows, parse_query
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


def page_request(
    services: ServicesDep,
    q: Annotated[str | None, Query()] = None,  # described by api/query_schema.py
    page: Annotated[
        str | None,
        Query(
            description="From 1; past the end `objects` is empty",
            examples=["1"],
            json_schema_extra={"pattern": "^[1-9][0-9]{0,8}$"},
        ),
    ] = None,
    results_per_page: Annotated[str | None, Query(description="Default 10, at most 100", examples=["10"])] = None,
) -> PageRequest:
    """Raises BadRequestError where `page` is not a positive int."""
    if page is not None and not _POSITIVE.fullmatch(page):
        raise BadRequestError(f"page must be a positive int, not {page[:50]!r}")
    return PageRequest(q, int(page or 1), _page_size(results_per_page, services.settings))


def _page_size(text: str | None, settings: Settings) -> int:
    if text is None or not _POSITIVE.fullmatch(text):
        return settings.default_results_per_page
    return min(int(text), settings.max_results_per_page)


Paging = Annotated[PageRequest, Depends(page_request)]


async def answer_query(
    request: Request, paging: PageRequest, resource: Resource, records: RecordRepository, settings: Settings
) -> Response:
    """The page, or with `single` the record, that a request asks for."""
    limits = Limits(settings.max_filter_depth, settings.max_filter_nodes, settings.max_in_values)
    query = parse_query(paging.q, resource, limits)
    rows = compile_rows(query, resource)
    if query.single:
        return await _answer_single(request, await records.rows(rows.limit(2)))
    total, objects = await records.page(rows, compile_count(query, resource), paging.offset, paging.size)
    pages = ceil(total / paging.size)
    body = {"num_results": total, "total_pages": pages, "page": _json_int(paging.page), "objects": objects}
    return json_answer(body, headers={"Link": _links(request, paging, pages)})


def _json_int(number: int) -> orjson.Fragment | int:
    """orjson writes 64-bit integers alone; a page that far is past any end, but it is a page (SPEC 4)."""
    return number if number < 2**63 else orjson.Fragment(str(number))


async def _answer_single(request: Request, found: list[dict[str, Any]]) -> Response:
    if not found:
        raise NotFoundError("No result found")
    if len(found) > 1:
        raise BadRequestError("Multiple results found")
    (record,) = found
    return json_answer(record, headers={"Location": record_url(request, next(iter(record.values())))})


def record_id(text: str) -> int:
    """The id in a path; text that is no id is the id of no record (SPEC 2)."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0


def record_url(request: Request, record_id: int) -> str:
    """The URL of a record of the collection that was asked."""
    return f"{request.url.replace(query='', fragment='')}/{record_id}".replace("?", "")


def _links(request: Request, paging: PageRequest, pages: int) -> str:
    links = [(max(pages, 1), "last")]
    if paging.page < pages:
        links.insert(0, (paging.page + 1, "next"))
    return ", ".join(f'<{_page_url(request, page, paging.size)}>; rel="{rel}"' for page, rel in links)


def _page_url(request: Request, page: int, size: int) -> str:
    others = [pair for pair in request.query_params.multi_items() if pair[0] not in ("page", "results_per_page")]
    query = urlencode([*others, ("page", page), ("results_per_page", size)])
    return str(request.url.replace(query=query, fragment=""))

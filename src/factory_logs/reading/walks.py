"""Walks through a whole result, page by page, each page at the same cost (SPEC 5).

A walk goes through what was there when it began: it keeps the newest id of that moment and looks at no newer one, so it
ends however much is stored meanwhile. Each of those records comes exactly once. One that had drawn its id before and is
committed after the walk began comes once or not at all, by whether its place has been passed.
"""

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Select

from factory_logs.db.records import RecordRepository
from factory_logs.errors import BadRequestError
from factory_logs.query import (
    Compare,
    Field,
    Kind,
    Operator,
    Query,
    Resource,
    compile_after,
    compile_keys,
    compile_rows,
)
from factory_logs.reading.counts import LogCounts
from factory_logs.reading.pages import count_records


@dataclass(frozen=True, slots=True)
class Position:
    """Where a walk stands: `pages` have been given, the last record of them was `last`."""

    newest: int
    """The newest id when the walk began."""
    total: int
    """How many records there were then."""
    pages: int
    last: int
    left: int
    """How many more `limit` allows; negative for any number."""


@dataclass(frozen=True, slots=True)
class Step:
    """One page of a walk; `position` is where it stands then, None at its end."""

    total: int
    page: int
    objects: str
    position: Position | None


async def step(
    records: RecordRepository,
    counts: LogCounts | None,
    query: Query,
    resource: Resource,
    position: Position | None,
    size: int,
) -> Step:
    """The first page, or the one after `position`. Raises BadRequestError, DatabaseUnavailableError."""
    if query.group_by or query.single:
        raise BadRequestError(f"A cursor cannot walk through {'groups' if query.group_by else 'a single record'}")
    if position is None:
        position, statements = await _begin(records, counts, query, resource)
    else:
        statements = await _go_on(records, query, resource, position)
    found = await _first(records, statements, size + 1 if position.left < 0 else min(size + 1, position.left))
    more, found = len(found) > size, found[:size]
    objects = ",".join(text for _, text in found)
    page = position.pages + 1
    if not more:
        return Step(position.total, page, objects, None)
    left = position.left - size if position.left >= 0 else position.left
    after = replace(position, pages=page, last=found[-1][0], left=left)
    return Step(position.total, page, objects, after)


async def _begin(
    records: RecordRepository, counts: LogCounts | None, query: Query, resource: Resource
) -> tuple[Position, list[Select[Any]]]:
    total, newest, lowest = await count_records(records, counts, query, resource)
    begun = Position(newest, total, 0, 0, -1 if query.limit is None else query.limit)
    return begun, [compile_rows(up_to(newest, query, resource), resource, lowest)]


async def _go_on(records: RecordRepository, query: Query, resource: Resource, position: Position) -> list[Select[Any]]:
    keys: tuple[Any, ...] = ()
    if query.order_by:
        found = await records.keys(compile_keys(query, resource, position.last))
        if found is None:
            raise BadRequestError("The record at which this walk stood has been removed; begin again: ?cursor=")
        keys = found
    return compile_after(up_to(position.newest, query, resource), resource, keys, position.last)


def up_to(newest: int, query: Query, resource: Resource) -> Query:
    old_enough = Compare(Field(resource.primary_key, Kind.INT), Operator.LESS_OR_EQUAL, newest)
    return replace(query, filters=(*query.filters, old_enough))


async def _first(records: RecordRepository, statements: list[Select[Any]], size: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for statement in statements:
        if len(found) < size:
            found += await records.found(statement.limit(size - len(found)))
    return found

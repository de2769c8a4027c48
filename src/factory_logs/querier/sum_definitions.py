"""The definition of a sum: which logs it covers, and how its rows are read, keyed and merged."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.querier.aggregates import canonical
from factory_logs.querier.sum_parts import Merging
from factory_logs.querier.sum_tables import Key, Table
from factory_logs.query import Field, Query
from factory_logs.query.rewriting import TimeRange

Conditions = Sequence[ColumnElement[bool]]
Read = Callable[[AsyncConnection, Conditions, int], Awaitable[Sequence[Sequence[Any]]]]
"""Returns the rows over the logs that meet the conditions, but at most one row more than the given number. A row
contains the columns of the key, then numbers."""

EPOCH = datetime(1970, 1, 1)


def json_texts(values: Sequence[Any]) -> Key:
    """Return a key of JSON texts; equal values have equal texts."""
    return tuple(map(canonical, values))


class Bins(NamedTuple):
    """Bins of time of equal length; one of them begins at `origin`."""

    length: timedelta
    origin: datetime

    def whole(self, wanted: TimeRange) -> TimeRange | None:
        """Return the range of the bins that lie completely in a time range, or None if there are none."""
        begin, end = wanted.begin, wanted.end
        if begin is not None:
            begin += (self.origin - begin) % self.length
        if end is not None:
            end -= (end - self.origin) % self.length
        return None if begin is not None and end is not None and begin >= end else TimeRange(begin, end)


@dataclass(frozen=True, slots=True)
class Summed:
    """The definition of a sum over the logs of `query`. `read` returns its rows; the first `keys` columns identify a
    row.

    `name` distinguishes the sum from other sums over the same query. If `unit` is given, the logs of a unit are summed
    together, otherwise each log by itself. `relevant` contains conditions for the logs that count. If `part` is given,
    the sum covers all time, and is computed and cached in parts of that many ids (querier/sum_parts.py). `least`
    and `greatest` are the positions of numbers that are a minimum or a maximum, not a sum. A number may also be a list,
    or None if there is no value. `are_exact` is false for sums of doubles: subtracting a log from such a sum does not
    give the same result as summing without it.

    If `read_unlike` is given, it returns, for logs that are added, only the rows that are not in the table yet.

    If `bins` is given, the last column of the key is the beginning of a bin, in microseconds since 1970. `as_key`
    converts the first columns to the key: to JSON texts, or with `tuple` to the unchanged values, if these are texts
    and whole numbers.
    """

    name: str
    query: Query
    keys: int
    read: Read
    unit: Field | None = None
    relevant: Conditions = ()
    part: int | None = None
    least: frozenset[int] = frozenset()
    greatest: frozenset[int] = frozenset()
    are_exact: bool = True
    read_unlike: Callable[[AsyncConnection, Conditions, int, Table], Awaitable[Sequence[Sequence[Any]]]] | None = None
    bins: Bins | None = None
    as_key: Callable[[Sequence[Any]], Key] = json_texts

    @property
    def can_subtract(self) -> bool:
        return self.are_exact and not self.least and not self.greatest

    @property
    def merging(self) -> Merging:
        return Merging(self.least, self.greatest)

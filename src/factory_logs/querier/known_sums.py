"""The known sums over the logs of a time range: their names, when they help for another range, and their format in the
database."""

import hashlib
import json
import zlib
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, literal_column, select
from sqlalchemy.dialects import postgresql

from factory_logs.db.count_cache import Known, TableState
from factory_logs.querier.sum_definitions import EPOCH, Summed
from factory_logs.querier.sum_tables import Table, decoded_rows, encoded_rows
from factory_logs.query import FACTORY_LOGS, Query, compile_filters
from factory_logs.query.rewriting import MICROSECOND, TimeRange, split_time

WORTHWHILE = 4
"""A cached sum is reused for another time range if the two ranges differ by at most a quarter of the wanted range."""
VERSION = 3
"""The version of the format of stored sums. Increase it if the meaning of the stored data changes."""


class KnownSums(NamedTuple):
    """The sums over the logs of a time range up to a watermark. `table` is None if there are too many rows. `seconds`
    is the time that computing them from all their logs took."""

    state: TableState
    up_to: int
    range: TimeRange
    table: Table | None
    seconds: float = 0.0


class Cheap(NamedTuple):
    """Marks sums that were computed so fast for a time range that they are not worth caching."""

    state: TableState
    up_to: int
    range: TimeRange


def is_worthwhile(known: TimeRange, wanted: TimeRange) -> bool:
    """Return whether two time ranges differ so little that the sum for one can be computed from the sum for the
    other."""
    if known == wanted:
        return True
    differing = timedelta(0)
    for old, new in ((known.begin, wanted.begin), (known.end, wanted.end)):
        if (old is None) != (new is None):
            return False
        if old is not None and new is not None:
            differing += abs(old - new)
    begin = wanted.begin or datetime.min
    end = wanted.end or datetime.now(UTC).replace(tzinfo=None)
    return differing * WORTHWHILE <= end - begin


def within(table: Table, wanted: TimeRange) -> Table:
    """Return the rows of the bins that lie in a time range."""
    first, end = (None if moment is None else (moment - EPOCH) // MICROSECOND for moment in (wanted.begin, wanted.end))
    return {
        key: numbers
        for key, numbers in table.items()
        if (first is None or first <= key[-1]) and (end is None or key[-1] < end)
    }


def sums_name(summed: Summed, query: Query) -> bytes:
    """Return the name of a sum, without its time range. The order of filters does not matter, because all of them must
    match."""
    parts = (VERSION, summed.name, summed.unit, sorted(map(repr, query.filters)))
    return hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()


def sums_digest(summed: Summed) -> bytes:
    """Return the name of a sum in the database. The name is derived from the SQL, so sums stored before a fix in the
    compiler are not used after it."""
    query, _ = split_time(summed.query)
    asked: Select[Any] = select(literal_column("1")).where(*compile_filters(query, FACTORY_LOGS), *summed.relevant)
    compiled = asked.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    parts = (VERSION, summed.name, summed.unit, str(compiled), sorted(compiled.params.items()))
    return hashlib.sha256(repr(parts).encode()).digest()


def encode(known: KnownSums) -> bytes:
    """Return sums in the format of the database."""
    rows = encoded_rows(known.table or {})
    # Not orjson, which does not support integers beyond 64 bits.
    content = [known.range.begin, known.range.end, rows, known.seconds]
    text = json.dumps(content, default=str, separators=(",", ":"))
    return zlib.compress(text.encode(), 1)


def decode(stored: Known) -> KnownSums:
    begin, end, rows, seconds = json.loads(zlib.decompress(stored.content or b""))
    moments = [None if text is None else datetime.fromisoformat(text) for text in (begin, end)]
    return KnownSums(stored.state, stored.up_to, TimeRange(*moments), decoded_rows(rows), seconds)

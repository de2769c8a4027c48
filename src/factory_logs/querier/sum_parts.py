"""Sums that are computed in parts, each over a range of ids, and that stay known after retention.

A part notes how many logs had been removed from its blocks of ids (db/removals.py). If retention has removed logs of
some blocks, only the parts of these blocks are read again. A minimum or the names of paths cannot be corrected by
subtracting the removed logs, but they can be merged again from the other parts.

Retention removes the oldest logs, which have the lowest ids. So it usually changes a few parts. If there are too many
parts, or too many rows in all of them together, neighbouring parts are merged.
"""

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from factory_logs.db.count_cache import Known, TableState
from factory_logs.db.removals import Removals
from factory_logs.querier.sum_tables import Key, Numbers, Table, add_numbers, decoded_rows, encoded_rows, sums_size

MOST_PARTS = 1_000
"""Each request that finds new logs looks at all parts, which takes about 3 ms for this many."""


class SumPart(NamedTuple):
    """The sums over the logs with ids above `begin`, up to `up_to`. The part is complete if `up_to` is its `end`.

    `removed` is how many logs had been removed from its blocks when it was read.
    """

    begin: int
    end: int
    up_to: int
    removed: int
    table: Table


class KnownParts(NamedTuple):
    """The parts that are known, in the order of ids, and the sums over all of them. `table` is None if there are too
    many rows. `uncounted` is that of Removals."""

    state: TableState
    uncounted: int
    parts: Sequence[SumPart]
    table: Table | None

    @property
    def up_to(self) -> int:
        """The id up to which logs were read; it must not be above the watermark of a snapshot that uses the parts."""
        return self.parts[-1].up_to if self.parts else 0

    @property
    def covered(self) -> int:
        """The number of ids in all parts."""
        return sum(part.up_to - part.begin for part in self.parts)

    @property
    def rank(self) -> tuple[int, bool, int]:
        """Of two results for one table, the one with the higher rank is cached."""
        return self.state.removed, self.table is None, self.covered

    @property
    def size(self) -> int:
        """The approximate size in bytes. A table that several parts share counts once."""
        return sum(map(sums_size, distinct(self.table, *(part.table for part in self.parts))))


class Missing(NamedTuple):
    """A range of ids to be read: a new part, or the rest of a part that is not complete."""

    above: int
    up_to: int
    part: SumPart | None


class Merging(NamedTuple):
    """How the numbers of a sum are merged: `least` and `greatest` are those of Summed."""

    least: frozenset[int]
    greatest: frozenset[int]

    def merged(self, tables: Iterable[Table]) -> Table:
        """Return the sums over the logs of all tables."""
        found: dict[Key, Numbers] = {}
        read: set[int] = set()
        for table in tables:
            if id(table) in read and self._is_idempotent(table):
                continue
            read.add(id(table))
            for key, numbers in table.items():
                add_numbers(found, key, numbers, 1, self.least, self.greatest)
        return found

    def changes(self, table: Table, rows: Table) -> bool:
        """Return whether the table changes if these rows are merged into it."""
        if self._is_idempotent(rows):
            return any(table.get(key) != numbers for key, numbers in rows.items())
        return bool(rows)

    def _is_idempotent(self, table: Table) -> bool:
        """Return whether merging the table twice has the same result as merging it once."""
        numbers = next(iter(table.values()), ())
        return len(self.least | self.greatest) == len(numbers)


def distinct(*tables: Table | None) -> Sequence[Table]:
    """Return each table once."""
    return list({id(table): table for table in tables if table is not None}.values())


def missing(parts: Sequence[SumPart], length: int, goal: int) -> Iterator[Missing]:
    """Yield the ranges of ids up to `goal` that no part covers, each with at most `length` ids."""
    reached = 0
    for part in parts:
        yield from _new(reached, min(part.begin, goal), length)
        if part.up_to < min(part.end, goal):
            yield Missing(part.up_to, min(part.end, goal), part)
        reached = part.end
    yield from _new(reached, goal, length)


def _new(above: int, up_to: int, length: int) -> Iterator[Missing]:
    for begin in range(above, up_to, length):
        yield Missing(begin, min(begin + length, up_to), None)


def valid_parts(known: KnownParts, state: TableState, removals: Removals, merging: Merging) -> KnownParts:
    """Return the parts from which no log was removed since they were read; `removals` are those of `state`."""
    kept: list[SumPart] = []
    if known.uncounted == removals.uncounted:
        kept = [part for part in known.parts if part.removed == removals.within(part.begin, part.end)]
    if known.table is not None and len(kept) == len(known.parts):
        return known._replace(state=state)
    return KnownParts(state, removals.uncounted, tuple(kept), merging.merged(part.table for part in kept))


def with_rows(
    known: KnownParts, found: Missing, rows: Table, length: int, removed: int, merging: Merging
) -> KnownParts:
    """Return the known parts with the sums over a missing range of ids added. `removed` is that of the part."""
    assert known.table is not None  # noqa: S101 - the caller has looked
    part, total = found.part, known.table
    table: Table = {} if part is None else part.table
    if merging.changes(total, rows):
        total = merging.merged((total, rows))
    if merging.changes(table, rows):
        table = merging.merged((table, rows))
    # Most parts have the same rows as all logs, or as the last part. They share one table.
    table = next((each for each in (total, *(other.table for other in known.parts[-1:])) if each == table), table)
    begin, end = (found.above, found.above + length) if part is None else (part.begin, part.end)
    now = SumPart(begin, end, found.up_to, removed, table)
    parts = sorted((*(each for each in known.parts if each.begin != begin), now), key=lambda each: each.begin)
    return known._replace(parts=tuple(parts), table=total)


def fewer_parts(known: KnownParts, most_rows: int, merging: Merging) -> KnownParts:
    """Return the parts with neighbours merged until there are at most MOST_PARTS with at most `most_rows` rows
    together, or nothing can be merged."""
    while len(known.parts) > MOST_PARTS or sum(map(len, distinct(*(part.table for part in known.parts)))) > most_rows:
        parts = tuple(_pairs(known.parts, merging))
        if len(parts) == len(known.parts):
            break
        known = known._replace(parts=parts)
    return known


def _pairs(parts: Sequence[SumPart], merging: Merging) -> Iterator[SumPart]:
    """Yield the parts, with complete neighbours merged in pairs."""
    left = list(reversed(parts))
    while left:
        part = left.pop()
        if left and part.up_to == part.end == left[-1].begin and left[-1].up_to == left[-1].end:
            other = left.pop()
            merged = merging.merged((part.table, other.table))
            table = next((each for each in (part.table, other.table) if each == merged), merged)
            part = SumPart(part.begin, other.end, other.up_to, part.removed + other.removed, table)
        yield part


def encode(known: KnownParts) -> bytes:
    """Return the parts in the format of the database, in which parts also share their tables."""
    tables = distinct(*(part.table for part in known.parts))
    indexes = {id(table): index for index, table in enumerate(tables)}
    parts = [(*part[:4], indexes[id(part.table)]) for part in known.parts]
    content = [known.uncounted, parts, list(map(encoded_rows, tables))]
    return zlib.compress(json.dumps(content, default=str, separators=(",", ":")).encode(), 1)


def decode(stored: Known, merging: Merging) -> KnownParts:
    """Return the parts that the database has stored. Not all of them need be valid."""
    uncounted, parts, rows = json.loads(zlib.decompress(stored.content or b""))
    tables = list(map(decoded_rows, rows))
    found = tuple(SumPart(begin, end, up_to, removed, tables[index]) for begin, end, up_to, removed, index in parts)
    return KnownParts(stored.state, uncounted, found, merging.merged(part.table for part in found))

"""Aggregate points by series and window, and cache the results as sums (querier/sums.py)."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.influxql.ast import Type
from factory_logs.influxql.constants import EARLIEST, LATEST
from factory_logs.influxql.selection import (
    MICROSECOND,
    Aggregate,
    Source,
    TimeBins,
    aggregate_rows,
    edge_rows,
    to_datetime,
)
from factory_logs.influxql.windows import Windows
from factory_logs.querier.sum_definitions import Bins, Conditions, Summed
from factory_logs.querier.sum_rows import fetched
from factory_logs.querier.sum_tables import Table, merged_numbers
from factory_logs.query.rewriting import TimeRange

Aggregates = tuple[Any, ...]
"""The aggregates of a series in a window; None for an aggregate without points."""
Tags = tuple[str, ...]
AggregatedSeries = dict[Tags, dict[int, Aggregates]]
"""The aggregates of each series in each window. The keys are the values of the series' tags, then the beginning of the
window in nanoseconds."""
_LEAST = frozenset({"min", "first", "min at"})
_GREATEST = frozenset({"max", "last", "max at"})


AT_EDGE = 1_000
AT_EDGE_OF_SERIES = 16
"""The number of oldest or newest logs in which the first or last value of each series is looked for:
AT_EDGE_OF_SERIES for each series, but at least AT_EDGE."""
EDGES = frozenset({"first", "last"})


def window_sums(
    source: Source,
    bins: TimeBins,
    wanted: Sequence[Aggregate],
    present: Sequence[Aggregate],
    series: AbstractSet[Tags] = frozenset(),
) -> Summed:
    """Return the sums that compute the aggregates of a source by series and bin. Aggregates that are not in `present`
    are None.

    If `series` is given, it contains all series that can exist, and `wanted` is only `first` or only `last`. The oldest
    or newest logs are then read first. The other logs are read only if a series has no value in the logs read so far.
    """
    positions = {each: index for index, each in enumerate(present)}
    indexes = [positions.get(each) for each in wanted]
    whole = [name in ("sum", *_LEAST, *_GREATEST) and reference.type is Type.INTEGER for name, reference in present]
    keys = len(source.dimensions) + bool(bins.length)

    async def read(connection: AsyncConnection, conditions: Conditions, most: int) -> Sequence[Sequence[Any]]:
        rows = await _at_edge(connection, source, present, conditions, series) if series else None
        if rows is None:
            statement = aggregate_rows(source, bins, present, [*conditions, *source.open_ends()])
            rows = await fetched(connection, statement, most)
        found = []
        for row in rows:
            numbers = [
                _as_integer(each) if is_whole else each for is_whole, each in zip(whole, row[keys:], strict=True)
            ]
            found.append((*row[:keys], *(None if index is None else numbers[index] for index in indexes)))
        return found

    of = source.locations([*source.dimensions, *(reference.name for _, reference in wanted)])
    name = repr(("influxql windows", source.name, source.condition, source.dimensions, bins, list(wanted), of))
    begin = None if source.first <= EARLIEST else to_datetime(source.first, up=True)
    end = None if source.last >= LATEST else to_datetime(source.last) + timedelta(microseconds=1)
    return Summed(
        name,
        TimeRange(begin, end).as_query(),
        keys,
        read,
        relevant=[*source.conditions(), *source.open_ends()],
        least=_indexes(wanted, _LEAST),
        greatest=_indexes(wanted, _GREATEST),
        are_exact=False,
        bins=Bins(timedelta(microseconds=bins.length // MICROSECOND), to_datetime(bins.origin))
        if bins.length
        else None,
        as_key=tuple,
    )


async def _at_edge(
    connection: AsyncConnection,
    source: Source,
    present: Sequence[Aggregate],
    conditions: Conditions,
    series: AbstractSet[Tags],
) -> Sequence[Sequence[Any]] | None:
    """Return the first or the last value of each series if the oldest or the newest logs contain all of them, or if
    there are no other logs. Otherwise return None."""
    ((name, _),) = present
    most = max(AT_EDGE, AT_EDGE_OF_SERIES * len(series))
    statement = edge_rows(source, present[0], [*conditions, *source.open_ends()], most)
    rows = (await connection.execute(statement)).all()
    if sum(row.logs for row in rows) == most:
        # Of several values at one time, the greatest is chosen. Some logs at the farthest time may not have been read.
        if name == "last":
            farthest = min(row.farthest for row in rows)
            found = {tuple(row[:-3]) for row in rows if row.found is not None and row.found[0] > farthest}
        else:
            farthest = max(row.farthest for row in rows)
            found = {tuple(row[:-3]) for row in rows if row.found is not None and row.found[0] < farthest}
        if not series <= found:
            return None
    return [row[:-2] for row in rows]


def _indexes(wanted: Sequence[Aggregate], names: frozenset[str]) -> frozenset[int]:
    return frozenset(index for index, (name, _) in enumerate(wanted) if name in names)


def _as_integer(value: Any) -> Any:
    """Return one or several of PostgreSQL's numerics as int."""
    if isinstance(value, list):
        return [int(each) for each in value]
    return None if value is None else int(value)


def in_windows(
    table: Table, windows: Windows, bins: TimeBins, wanted: Sequence[Aggregate], *, descending: bool
) -> AggregatedSeries:
    """Return the sums by series and window. Windows of local time are combined from shorter bins."""
    found: AggregatedSeries = {}
    if not bins.length:
        return {key: {windows.first: numbers} for key, numbers in table.items()}
    for key, numbers in table.items():
        found.setdefault(key[:-1], {})[key[-1] * MICROSECOND] = numbers
    if windows.zone is None:
        return found
    least, greatest = _indexes(wanted, _LEAST), _indexes(wanted, _GREATEST)
    return {
        tags: _of_local_time(windows, of_bins, least, greatest, descending=descending)
        for tags, of_bins in found.items()
    }


def _of_local_time(
    windows: Windows, bins: dict[int, Aggregates], least: frozenset[int], greatest: frozenset[int], *, descending: bool
) -> dict[int, Aggregates]:
    found: dict[int, Aggregates] = {}
    window, end = 0, 0
    for start in sorted(bins, reverse=descending):
        if not window <= start < end:  # the window of the bin before may contain an hour that is repeated
            window, end = windows.around(start)
        known = found.get(window)
        found[window] = bins[start] if known is None else merged_numbers(known, bins[start], 1, least, greatest)
    return found

"""Compute stats for plots: counts and measures by time bucket and group."""

from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Row
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db import citus_results
from factory_logs.db.aggregates import PERCENTILES, Selection, count_rows, group_rows, percentile_rows
from factory_logs.db.citus import runs_on_cluster
from factory_logs.querier.aggregates import (
    AggregateResult,
    Aggregates,
    approximate,
    canonical,
    exact,
    group_names,
    grouping,
    limited,
    log_value,
    rank,
    sample_condition,
    selection,
    shown,
    sorted_rows,
)
from factory_logs.querier.sum_definitions import Conditions, Summed
from factory_logs.querier.sum_rows import fetched
from factory_logs.querier.sums import Sums, limited_table
from factory_logs.query import FACTORY_LOGS, MEASURES, StatsQuery, field_number
from factory_logs.query.rewriting import split_time

_PARTS = 4
"""The values that a row of `group_rows` contains for each field: count, min, sum and max."""


async def read_stats(sums: Sums, aggregates: Aggregates, stats: StatsQuery, max_rows: int) -> AggregateResult:
    """Return an object for each bucket and group. Raises BadRequestError for more than `max_rows` objects."""
    keys = group_names(stats.bucket, stats.by)
    if stats.fields:
        buckets = await _measured(aggregates, stats, max_rows)
    else:
        counts = sorted_rows(await limited_table(sums, count_sums(stats), max_rows, max_rows))
        if not keys and not counts:
            counts = [((), (0,))]  # without `bucket` there is always exactly one bucket
        buckets = [dict(zip(keys, map(orjson.Fragment, key), strict=True)) | {"count": logs} for key, (logs,) in counts]
    columns = [*keys, "count", *(f"{name}.{measure}" for name in stats.fields for measure in MEASURES)]
    return AggregateResult({"buckets": buckets}, columns, [_flat(bucket) for bucket in buckets])


def count_sums(stats: StatsQuery) -> Summed:
    """Return the sums for stats without fields: the number of logs in each bucket and group."""
    grouped = grouping(stats.bucket, list(map(log_value, stats.by.values())))

    async def read(connection: AsyncConnection, conditions: Conditions, most: int) -> Sequence[Row[Any]]:
        return await fetched(connection, count_rows(replace(grouped, conditions=conditions)), most)

    name = repr(("stats", stats.bucket, list(stats.by.items())))
    return Summed(name, stats.query, len(group_names(stats.bucket, stats.by)), read)


async def _measured(aggregates: Aggregates, stats: StatsQuery, max_rows: int) -> list[dict[str, Any]]:
    """Return the buckets with the measures of fields. This reads all logs each time, because percentiles cannot be
    added."""
    logs = selection(stats.query, stats.bucket, stats.by.values())
    numbers = [
        field_number(field, FACTORY_LOGS, FACTORY_LOGS.table, with_booleans=True) for field in stats.fields.values()
    ]
    async with aggregates.snapshot() as connection:
        if sample := await sample_condition(connection, logs.conditions, split_time(stats.query)[1], max_rows):
            await limited(connection, count_rows(logs.narrowed(sample)), max_rows)
        # This statement runs first: it is cheaper, and fails if there are too many groups.
        on_cluster = await runs_on_cluster(connection)
        rows = await limited(connection, group_rows(logs, numbers, on_cluster=on_cluster), max_rows)
        percentiles = await _percentiles(connection, logs, numbers) if rows else ()
    buckets = [_as_object(row, more, stats) for row, more in zip(rows, percentiles, strict=True)]
    keys = group_names(stats.bucket, stats.by)
    return sorted(buckets, key=lambda bucket: [rank(canonical(bucket[name])) for name in keys])


async def _percentiles(
    connection: AsyncConnection, logs: Selection, numbers: Sequence[ColumnElement[Any]]
) -> Sequence[Sequence[Any]]:
    if not await runs_on_cluster(connection):
        rows: Sequence[Row[Any]] = (await connection.execute(percentile_rows(logs, numbers))).all()
        return rows
    found = [
        (await connection.execute(citus_results.percentile_rows(logs, number, PERCENTILES))).all() for number in numbers
    ]
    return [[share for row in group for share in row] for group in zip(*found, strict=True)]


def _as_object(row: Sequence[Any], percentiles: Sequence[Any], stats: StatsQuery) -> dict[str, Any]:
    names = group_names(stats.bucket, stats.by)
    found = {name: shown(value) for name, value in zip(names, row, strict=False)}
    found["count"] = row[len(names)]
    if stats.fields:
        parts, shares = iter(row[len(names) + 1 :]), iter(percentiles)
        found["values"] = {name: _measures([next(parts) for _ in range(_PARTS)], shares) for name in stats.fields}
    return found


def _measures(parts: Sequence[str | None], shares: Any) -> dict[str, Any]:
    count, least, total, greatest = parts
    average = None if total is None else Decimal(total) / Decimal(count or 1)
    values = (
        exact(count),
        exact(least),
        approximate(average),
        exact(greatest),
        exact(next(shares)),
        exact(next(shares)),
    )
    return dict(zip(MEASURES, values, strict=True))


def _flat(bucket: dict[str, Any]) -> dict[str, Any]:
    values = bucket.get("values", {})
    measures = {f"{name}.{measure}": value for name, of in values.items() for measure, value in of.items()}
    return {name: value for name, value in bucket.items() if name != "values"} | measures

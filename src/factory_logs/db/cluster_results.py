"""SQL for test results on a Citus cluster, which does not support the statements for PostgreSQL
(docs/how-to/scale-out.md)."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Float, Numeric, Select, Text, cast, func, literal, select

from factory_logs.db.aggregates import LOGS, Selection
from factory_logs.db.results import failed_measurements, is_failed

# Citus does not support recursive queries. The function is created on every node when the logs are distributed.
FAILED_MEASUREMENTS = f"""
CREATE OR REPLACE FUNCTION factory_logs_failed_measurements (fields jsonb, passed text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE AS $function$
    SELECT coalesce(array_agg(name), ARRAY[NULL::text])
    FROM ({failed_measurements("fields", "passed")}) AS measurement
$function$
"""  # noqa: S608 - our own text


def failure_rows(
    conditions: Sequence[ColumnElement[bool]],
    unit: ColumnElement[Any],
    passed: ColumnElement[Any],
    passed_path: Sequence[str],
) -> Select[Any]:
    """Return the statement that a cluster runs instead of `failure_rows` in db/results.py, with the same result."""
    names = func.factory_logs_failed_measurements(LOGS.c.fields, literal(list(passed_path), ARRAY(Text)))
    failed = (
        select(LOGS.c.app_name, unit.label("unit"), func.unnest(names, type_=Text()).label("name"))
        .where(*conditions, is_failed(passed))
        .subquery()
    )
    pairs = (
        select(failed.c.name, failed.c.app_name, failed.c.unit, func.count().label("attempts"))
        .group_by(failed.c.name, failed.c.app_name, failed.c.unit)
        .subquery()
    )
    attempts = cast(func.sum(pairs.c.attempts), BigInteger)
    return select(pairs.c.name, attempts, func.count().filter(pairs.c.unit.is_not(None))).group_by(pairs.c.name)


def percentile_rows(selection: Selection, number: ColumnElement[Any], shares: Sequence[float]) -> Select[Any]:
    """Return a statement with one row for each bucket and group, in their order. A row contains the percentiles for
    these shares, by nearest rank, as text; they are null in a group without numbers.

    Each node counts equal numbers, so that only the counts are sent to the coordinator. With `percentile_disc`, the
    nodes would send all numbers.
    """
    rows = selection.rows(number=number)
    keys = selection.keys(rows)
    value = rows.c.number
    counted = select(*keys, value, func.count(value).label("logs")).group_by(*keys, value).subquery()
    keys = selection.keys(counted)
    group = keys or None
    reached = select(
        *counted.columns,
        func.sum(counted.c.logs).over(partition_by=group, order_by=counted.c.number).label("reached"),
        func.sum(counted.c.logs).over(partition_by=group).label("total"),
    ).subquery()
    # The rank is the product of doubles, rounded up, as in percentile_disc.
    found: list[ColumnElement[Any]] = [
        cast(
            func.min(reached.c.number).filter(
                reached.c.reached
                >= cast(func.ceil(literal(share, Float(53)) * cast(reached.c.total, Float(53))), Numeric)
            ),
            Text,
        )
        for share in shares
    ]
    return select(*found).group_by(*selection.keys(reached)).order_by(*selection.order(reached))

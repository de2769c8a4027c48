"""SQL for test results on a Citus cluster, which does not support the statements for PostgreSQL
(docs/how-to/scale-out.md)."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Float,
    Numeric,
    Select,
    Subquery,
    Text,
    cast,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import array

from factory_logs.db.aggregates import LOGS, Selection
from factory_logs.db.results import PERCENTILES, failed_measurements, is_failed, number_logs, outside

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
    """Return a statement that selects one row for each bucket and group, sorted by bucket and group.

    A row contains the percentiles for these shares, by nearest rank, as text; they are null in a group without numbers.
    """
    values = _values(selection, selection.rows(number=number))
    keys = selection.keys(values)
    return select(*_percentiles(values, shares)).group_by(*keys).order_by(*selection.order(values))


def number_rows(
    selection: Selection, number: ColumnElement[Any], lower: Decimal | None, upper: Decimal | None
) -> Select[Any]:
    """Return the statement that a cluster runs instead of `number_rows` in db/results.py, with the same result."""
    values = _values(selection, number_logs(selection, number))
    value, logs = values.c.number, values.c.logs
    count, total, squares = func.sum(logs), func.sum(value * logs), func.sum(value * value * logs)
    measures = (func.coalesce(count, literal_column("0")), total, squares, func.min(value), func.max(value))
    below, above = (
        cast(func.coalesce(func.sum(logs).filter(condition), literal_column("0")), BigInteger)
        for condition in outside(value, lower, upper)
    )
    return (
        select(
            *selection.shown(values),
            *[cast(measure, Text) for measure in measures],
            array(_percentiles(values, PERCENTILES)),
            below,
            above,
        )
        .group_by(*selection.keys(values))
        .order_by(*selection.order(values))
    )


def _values(selection: Selection, rows: Subquery) -> Subquery:
    """Return one row for each number in each bucket and group: the keys, `number`, the number `logs` of logs that
    contain it, the number `reached` of logs up to it, and the number `total` of all logs in the group.

    Each node counts equal numbers, so that only the counts are sent to the coordinator. For `percentile_disc`,
    the nodes would send the number of each log.
    """
    keys, value = selection.keys(rows), rows.c.number
    counted = select(*keys, value, func.count(value).label("logs")).group_by(*keys, value).subquery()
    group = selection.keys(counted) or None
    return select(
        *counted.columns,
        func.sum(counted.c.logs).over(partition_by=group, order_by=counted.c.number).label("reached"),
        func.sum(counted.c.logs).over(partition_by=group).label("total"),
    ).subquery()


def _percentiles(values: Subquery, shares: Sequence[float]) -> list[ColumnElement[Any]]:
    # The rank is the product of doubles, rounded up, as in percentile_disc.
    return [
        cast(
            func.min(values.c.number).filter(
                values.c.reached
                >= cast(func.ceil(literal(share, Float(53)) * cast(values.c.total, Float(53))), Numeric)
            ),
            Text,
        )
        for share in shares
    ]

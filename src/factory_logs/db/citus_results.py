"""SQL for test results on a Citus cluster, which does not support the statements for PostgreSQL
(docs/how-to/scale-out.md)."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Select,
    Text,
    cast,
    func,
    literal,
    select,
)

from factory_logs.db.aggregates import LOGS, Selection
from factory_logs.db.results import failed_measurements, is_failed, percentiles, ranked_numbers

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
    values = ranked_numbers(selection, selection.rows(number=number))
    keys = selection.keys(values)
    return select(*percentiles(values, shares)).group_by(*keys).order_by(*selection.order(values))

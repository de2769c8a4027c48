"""The SQL of test results: yield, failures, distributions, facets, and one unit's history
(docs/reference/test-results.md).

Each function returns a statement. Most statements read the logs of a `Selection`, and take values as expressions over
its table.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from typing import cast as type_cast

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Float,
    Numeric,
    Select,
    String,
    Subquery,
    Table,
    Text,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
    text,
    tuple_,
)
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by, array

from factory_logs.db.aggregates import LOGS, Selection, computed_once
from factory_logs.db.json_and_csv import json_rows
from factory_logs.db.models import Repair

PERCENTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_TRUE = literal_column("'true'::jsonb", JSONB)
_FALSE = literal_column("'false'::jsonb", JSONB)


def failed_measurements(fields: str, passed: str) -> str:
    """Return the SQL for the failed measurements of one failed attempt, each `name` once.

    The arguments are SQL too: the JSON, and the path of the verdict as text[], which is not a measurement. The query
    visits all of the JSON. If an object has `pass` or `passed` false, the measurement is the path of the object.
    """
    return f"""
    WITH RECURSIVE node (path, value) AS (
        SELECT ARRAY['fields'], {fields}
        UNION ALL
        SELECT node.path || child.key, child.value
        FROM node CROSS JOIN LATERAL (
            SELECT key, value
            FROM jsonb_each(CASE jsonb_typeof(node.value) WHEN 'object' THEN node.value END)
            UNION ALL
            SELECT (ordinal - 1)::text, value
            FROM jsonb_array_elements(CASE jsonb_typeof(node.value) WHEN 'array' THEN node.value END)
                WITH ORDINALITY AS element (value, ordinal)
        ) AS child
        WHERE jsonb_typeof(child.value) IN ('object', 'array') OR child.value = 'false'
    )
    SELECT DISTINCT array_to_string(
        CASE WHEN cardinality(path) > 2 AND path[cardinality(path)] IN ('pass', 'passed')
             THEN path[1:cardinality(path) - 1] ELSE path END, '__') AS name
    FROM node WHERE value = 'false' AND path <> {passed}
"""  # noqa: S608 - our own text


_MEASUREMENTS = f"""
failed LEFT JOIN LATERAL ({failed_measurements("failed.fields", "CAST(:passed AS text[])")}) AS measurement ON true
"""


def yield_rows(selection: Selection, unit: ColumnElement[Any], passed: ColumnElement[Any]) -> Select[Any]:
    """Return a statement with one row for each bucket and group, in their order, then one for each app: the app or
    null, whether it is the row of an app, the keys, and YIELD_COUNTS.

    A pair of unit and app is counted at its first attempt, together with the verdict of its last attempt.
    """
    conditions = [*selection.conditions, is_attempt(passed)]
    rows = Selection(conditions, selection.by, selection.length, selection.zone).rows(
        LOGS.c.app_name, LOGS.c.timestamp, LOGS.c.factory_log_id, passed=passed == _TRUE, unit=unit
    )
    by_time = (rows.c.timestamp, rows.c.factory_log_id)
    pair = (rows.c.app_name, rows.c.unit)
    keys = selection.keys(rows)
    first = func.row_number().over(partition_by=pair, order_by=by_time) == literal_column("1")
    last_passed = func.last_value(rows.c.passed).over(partition_by=pair, order_by=by_time, rows=(None, None))
    next_id = func.lead(rows.c.factory_log_id).over(partition_by=pair, order_by=by_time)
    attempts = select(
        *keys,
        rows.c.app_name,
        rows.c.passed,
        and_(first, rows.c.unit.is_not(None)).label("is_first"),
        last_passed.label("last_passed"),
        next_id.is_not(None).label("is_retested"),
    ).subquery()
    keys = selection.keys(attempts)
    is_app = func.grouping(attempts.c.app_name) == literal_column("0")
    sets = func.grouping_sets(tuple_(*keys), tuple_(attempts.c.app_name))
    is_first = attempts.c.is_first
    counts = (
        func.count(),
        func.count().filter(attempts.c.passed),
        func.count().filter(is_first),
        func.count().filter(and_(is_first, attempts.c.passed)),
        func.count().filter(and_(is_first, attempts.c.last_passed)),
        func.count().filter(and_(is_first, attempts.c.is_retested)),
    )
    return (
        select(attempts.c.app_name.label("app"), is_app.label("is_app"), *selection.shown(attempts), *counts)
        .group_by(sets)
        .order_by(is_app, *selection.order(attempts), attempts.c.app_name)
    )


YIELD_COUNTS = ("attempts", "passed", "units", "first_passed", "last_passed", "retested")


def failure_rows(
    conditions: Sequence[ColumnElement[bool]],
    unit: ColumnElement[Any],
    passed: ColumnElement[Any],
    passed_path: Sequence[str],
) -> Select[Any]:
    """Return a statement with one row for each measurement: its name (null for attempts without one), the number of its
    failed attempts, and the number of different pairs of unit and app among them."""
    failed = (
        select(LOGS.c.factory_log_id, LOGS.c.app_name, LOGS.c.fields, unit.label("unit"))
        .where(*conditions, is_failed(passed))
        .cte("failed")
        .prefix_with("MATERIALIZED")
    )
    measurements = text(_MEASUREMENTS).bindparams(passed=list(passed_path))
    name: ColumnElement[Any] = literal_column("measurement.name", Text)
    has_unit: ColumnElement[bool] = literal_column("failed.unit IS NOT NULL")
    pairs = func.count(literal_column("(failed.app_name, failed.unit)").distinct()).filter(has_unit)
    return select(name, func.count(), pairs).select_from(measurements).add_cte(failed).group_by(name)


def failed_attempts(conditions: Sequence[ColumnElement[bool]], passed: ColumnElement[Any]) -> Select[Any]:
    """Return a statement for the number of failed attempts."""
    return select(func.count()).select_from(LOGS).where(*conditions, is_failed(passed))


def is_attempt(passed: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a log has a verdict."""
    return func.jsonb_typeof(passed) == literal_column("'boolean'")


def is_failed(passed: ColumnElement[Any]) -> ColumnElement[bool]:
    """Return the condition that a log is a failed attempt."""
    return passed == _FALSE


def number_logs(selection: Selection, number: ColumnElement[Any], *, on_cluster: bool) -> Subquery:
    """Return one row for each log that contains a number: the keys, its time, its id, and `number`."""
    logs = selection.rows(LOGS.c.timestamp, LOGS.c.factory_log_id, number=number)
    logs = logs if on_cluster else computed_once(logs)
    return select(logs).where(logs.c.number.is_not(None)).subquery()


def number_rows(selection: Selection, logs: Subquery, lower: Decimal | None, upper: Decimal | None) -> Select[Any]:
    """Return a statement with one row for each group of `number_logs`, in their order.

    A row has the keys; as text the count, sum, sum of squares, minimum, maximum and PERCENTILES (nearest rank) of the
    numbers; then how many are below `lower` and how many are above `upper`.

    The sums are exact. PostgreSQL would round a mean to about 16 digits, and the standard deviation of large numbers to
    fewer.
    """
    values = ranked_numbers(selection, logs)
    value, number_of_logs = values.c.number, values.c.logs
    count = func.coalesce(func.sum(number_of_logs), literal_column("0"))
    total, squares = func.sum(value * number_of_logs), func.sum(value * value * number_of_logs)
    below, above = (
        cast(func.coalesce(func.sum(number_of_logs).filter(condition), literal_column("0")), BigInteger)
        for condition in outside(value, lower, upper)
    )
    return (
        select(
            *selection.shown(values),
            *[cast(measure, Text) for measure in (count, total, squares, func.min(value), func.max(value))],
            array(percentiles(values, PERCENTILES)),
            below,
            above,
        )
        .group_by(*selection.keys(values))
        .order_by(*selection.order(values))
    )


def counted_numbers(selection: Selection, rows: Subquery) -> Subquery:
    """Return one row for each number in each bucket and group: the keys, `number`, and the number `logs` of logs that
    contain it.

    Measurements are rounded, so that most numbers are frequent, and the next step has few rows. On a cluster, the nodes
    send only these rows to the coordinator.
    """
    keys, value = selection.keys(rows), rows.c.number
    return select(*keys, value, func.count(value).label("logs")).group_by(*keys, value).subquery()


def ranked_numbers(selection: Selection, rows: Subquery) -> Subquery:
    """Return the rows of `counted_numbers`, each with the number `reached` of logs up to it, and the number `total` of
    all logs in the group. Both are doubles, which are exact here and faster than numeric."""
    counted = counted_numbers(selection, rows)
    group = selection.keys(counted) or None
    logs = func.sum(cast(counted.c.logs, Float(53)))
    return select(
        *counted.columns,
        logs.over(partition_by=group, order_by=counted.c.number).label("reached"),
        logs.over(partition_by=group).label("total"),
    ).subquery()


def percentiles(values: Subquery, shares: Sequence[float]) -> list[ColumnElement[Any]]:
    """Return the percentiles of `ranked_numbers`, by nearest rank, as text."""
    # The rank is the product of doubles, rounded up, as in percentile_disc.
    return [
        cast(
            func.min(values.c.number).filter(values.c.reached >= func.ceil(literal(share, Float(53)) * values.c.total)),
            Text,
        )
        for share in shares
    ]


def outside(
    value: ColumnElement[Any], lower: Decimal | None, upper: Decimal | None
) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    """Return the conditions that a number is below `lower`, and that it is above `upper`; false without a limit."""
    return (
        false() if lower is None else value < literal(lower, Numeric),
        false() if upper is None else value > literal(upper, Numeric),
    )


def moving_range_rows(selection: Selection, logs: Subquery) -> Select[Any]:
    """Return a statement with one row for each group of `number_rows`, in the same order: the sum of the differences
    between a number and the one before it in time, as text; null for a single number."""
    order = (logs.c.timestamp, logs.c.factory_log_id)
    keys = selection.keys(logs)
    before = func.lag(logs.c.number).over(partition_by=keys or None, order_by=order)
    ranges = select(*keys, func.abs(logs.c.number - before).label("moved")).subquery()
    moved = cast(func.sum(ranges.c.moved), Text)
    return select(moved).group_by(*selection.keys(ranges)).order_by(*selection.order(ranges))


def histogram_rows(selection: Selection, logs: Subquery, edges: Sequence[Decimal]) -> Select[Any]:
    """Return a statement with one row for each group and bin that has numbers, in the order of the groups: the position
    of the group from 1, the bin from 1, and the count of its numbers. A bin begins at one of `edges` and ends before
    the next; the last bin includes its end.
    """
    values = counted_numbers(selection, logs)
    keys = selection.keys(values)
    bounds = literal(list(edges), ARRAY(Numeric))
    bins = literal(len(edges) - 1, BigInteger)
    bin_number = func.least(func.greatest(func.width_bucket(values.c.number, bounds), literal_column("1")), bins)
    number_of_logs = cast(func.sum(values.c.logs), BigInteger).label("logs")
    counted = select(*keys, bin_number.label("bin"), number_of_logs).group_by(*keys, bin_number).subquery()
    group = func.dense_rank().over(order_by=selection.order(counted)) if keys else literal_column("1")
    return select(group, counted.c.bin, counted.c.logs).order_by(*selection.order(counted), counted.c.bin)


def value_rows(conditions: Sequence[ColumnElement[bool]], value: ColumnElement[Any]) -> Select[Any]:
    """Return a statement with one row for each value, including null: the value, and the number of its logs."""
    values = select(value.label("value")).select_from(LOGS).where(*conditions).subquery()
    return select(values.c.value, func.count().label("logs")).group_by(values.c.value)


def facet_rows(conditions: Sequence[ColumnElement[bool]], value: ColumnElement[Any], limit: int) -> Select[Any]:
    """Return a statement with one row for each of the `limit` most frequent values, and one for null: the value, the
    number of its logs, and the number of all logs. The most frequent value comes first; equally frequent ones are
    ordered by value, as in querier/aggregates.py."""
    counted = value_rows(conditions, value).cte("counted")
    order = (counted.c.logs.desc(), *_by_value(counted.c.value))
    rank = func.row_number().over(partition_by=counted.c.value.is_(None), order_by=order)
    ranked = select(counted, rank.label("rank"), func.sum(counted.c.logs).over().label("total")).subquery()
    shown = or_(ranked.c.value.is_(None), ranked.c.rank <= literal(limit, BigInteger))
    return select(ranked.c.value, ranked.c.logs, ranked.c.total).where(shown).order_by(ranked.c.rank)


def _by_value(value: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    """Return the order of values: strings by their code points, numbers, booleans, other JSON."""
    if isinstance(value.type, String):
        return [value.collate("C")]
    if not isinstance(value.type, JSONB):
        return [value]
    json_type = func.jsonb_typeof(value)
    kinds = case({"string": 0, "number": 1, "boolean": 2}, value=json_type, else_=3)
    as_text = value.op("#>>", return_type=Text())(literal([], ARRAY(Text)))
    return [kinds, case((json_type == "number", cast(value, Numeric))), as_text.collate("C")]


_REPAIRS = type_cast(Table, Repair.__table__)


def unit_rows(product_imei: str, passed: ColumnElement[Any]) -> Select[Any]:
    """Return a statement with one row for each app that has logs of the unit, by the time of its first log: its name,
    the numbers of logs, attempts and passed attempts, the times of the first and the last log, and whether the last
    attempt passed."""
    has_verdict, has_passed = is_attempt(passed), passed == _TRUE
    by_time = aggregate_order_by(has_passed, LOGS.c.timestamp.desc(), LOGS.c.factory_log_id.desc())
    results = func.array_agg(by_time).filter(has_verdict)
    first = func.min(LOGS.c.timestamp)
    return (
        select(
            LOGS.c.app_name,
            func.count(),
            func.count().filter(has_verdict),
            func.count().filter(has_passed),
            first,
            func.max(LOGS.c.timestamp),
            results[literal_column("1")],
        )
        .where(LOGS.c.product_imei == product_imei)
        .group_by(LOGS.c.app_name)
        .order_by(first, LOGS.c.app_name)
    )


def unit_repairs(product_imei: str) -> Select[Any]:
    """Return a statement for the unit's repairs as JSON text, in the order of their arrival."""
    repairs = select(_REPAIRS).where(_REPAIRS.c.product_imei == product_imei)
    order = (_REPAIRS.c.arrival_date.asc().nulls_last(), _REPAIRS.c.repair_id)
    return json_rows(repairs.order_by(*order), _REPAIRS)

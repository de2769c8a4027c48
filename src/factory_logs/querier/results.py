"""Test results from logs: yield, failures, distribution, facets, and one unit's history
(docs/reference/test-results.md)."""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from decimal import Decimal, localcontext
from fractions import Fraction
from math import prod
from typing import Any

import orjson
from sqlalchemy import Row, Subquery
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db import citus_results
from factory_logs.db.aggregates import Selection
from factory_logs.db.citus import runs_on_cluster
from factory_logs.db.results import (
    YIELD_COUNTS,
    facet_rows,
    failed_attempts,
    failure_rows,
    histogram_rows,
    is_attempt,
    is_failed,
    moving_range_rows,
    number_logs,
    number_rows,
    unit_repairs,
    unit_rows,
    value_rows,
    yield_rows,
)
from factory_logs.querier.aggregates import (
    FALSE,
    NULL,
    TRUE,
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
    too_many_groups,
)
from factory_logs.querier.sum_definitions import Conditions, Summed
from factory_logs.querier.sum_rows import TooManyRowsError, fetched
from factory_logs.querier.sums import Sums, SumsOfSnapshot, limited_table
from factory_logs.query import (
    FACTORY_LOGS,
    DistributionQuery,
    FacetsQuery,
    FailuresQuery,
    Field,
    Query,
    YieldQuery,
    compile_filters,
    field_number,
)
from factory_logs.query.fields import resolve
from factory_logs.query.parameters import PASSED
from factory_logs.query.rewriting import split_time
from factory_logs.schemas.factory_log import IMEI_PATTERN

YIELDS = {
    "attempt_yield": ("passed", "attempts"),
    "first_pass_yield": ("first_passed", "units"),
    "final_yield": ("last_passed", "units"),
}
FAILURE_COLUMNS = ("measurement", "attempts", "units", "share", "cumulative_share")
PERCENTILE_NAMES = ("p1", "p5", "p25", "p50", "p75", "p95", "p99")
MEASURES = ("count", "mean", "stddev", "min", "max", *PERCENTILE_NAMES)
INDICES = ("cp", "cpk", "pp", "ppk")
D2 = Decimal("1.128")
"""The mean range of two values from a normal distribution, in standard deviations: the control chart constant d2."""
DIGITS = 40
"""Enough digits for results that are exact to the last digit of a double."""
_TABLE = FACTORY_LOGS.table


async def read_yield(sums: Sums, question: YieldQuery, max_rows: int) -> AggregateResult:
    """Return counts and yields for each bucket and group, and in total. Raises BadRequestError for too many buckets and
    groups."""
    names = group_names(question.bucket, question.by)
    table = await limited_table(sums, yield_sums(question), max_rows, 2 * max_rows)
    groups = sorted_rows({key[2:]: counts for key, counts in table.items() if key[1] == FALSE})
    if len(groups) > max_rows:
        raise too_many_groups(max_rows)
    buckets = [
        dict(zip(names, map(orjson.Fragment, key), strict=True))
        | with_yields(dict(zip(YIELD_COUNTS, counts, strict=True)))
        for key, counts in groups
    ]
    apps = [dict(zip(YIELD_COUNTS, counts, strict=True)) for key, counts in table.items() if key[1] == TRUE]
    total = Counter(dict.fromkeys(YIELD_COUNTS, 0))
    for app in apps:
        total.update(app)
    # Sorted, because the product of doubles depends on their order.
    first_pass = sorted(app["first_passed"] / app["units"] for app in apps if app["units"])
    rolled = {"rolled_throughput_yield": prod(first_pass) if first_pass else None}
    columns = [*names, *YIELD_COUNTS, *YIELDS]
    return AggregateResult({"buckets": buckets, "total": with_yields(total) | rolled}, columns, buckets)


def yield_sums(question: YieldQuery) -> Summed:
    """Return the sums from which a yield is computed. A row contains the app, whether the row is the total of an app,
    the keys of the group, and YIELD_COUNTS."""
    unit, passed = (log_value(field) for field in (question.unit, question.passed))
    keys = [log_value(field) for field in question.by.values()]
    grouped = grouping(question.bucket, keys)

    async def read(connection: AsyncConnection, conditions: Conditions, most: int) -> Sequence[Row[Any]]:
        logs = replace(grouped, conditions=conditions)
        return await fetched(connection, yield_rows(logs, unit, passed), most)

    name = repr(("yield", question.bucket, list(question.by.items()), question.passed))
    width = 2 + len(group_names(question.bucket, question.by))
    return Summed(name, question.query, width, read, question.unit, [is_attempt(passed)])


def with_yields(counts: Mapping[str, int]) -> dict[str, Any]:
    """Return the counts and the yields computed from them. A yield without attempts or units is None."""
    yields = {name: counts[part] / counts[whole] if counts[whole] else None for name, (part, whole) in YIELDS.items()}
    return dict(counts) | yields


async def read_failures(sums: Sums, question: FailuresQuery, max_rows: int) -> AggregateResult:
    """Return the measurements that failed, the most frequent first. Raises BadRequestError for too many
    measurements."""
    table = await limited_table(sums, failure_sums(question), max_rows, max_rows + 1)
    failed = table.get((TRUE, NULL), (0, 0))[0]
    counted = [(key[1], *numbers) for key, numbers in table.items() if key[0] == FALSE]
    counted.sort(key=lambda row: (-row[1], rank(row[0])))
    whole, so_far, failures = sum(attempts for _, attempts, _ in counted), 0, []
    for name, attempts, units in counted[: question.limit]:
        so_far += attempts
        values = (orjson.Fragment(name), attempts, units, attempts / failed, so_far / whole)
        failures.append(dict(zip(FAILURE_COLUMNS, values, strict=True)))
    return AggregateResult({"failed_attempts": failed, "failures": failures}, FAILURE_COLUMNS, failures)


def failure_sums(question: FailuresQuery) -> Summed:
    """Return the sums for failures: one row for all attempts, and one row for each measurement. A row contains whether
    it is the row of all attempts, the measurement, and the numbers of attempts and pairs."""
    unit, passed = (log_value(field) for field in (question.unit, question.passed))
    path = (question.passed.column, *question.passed.path)

    async def read(connection: AsyncConnection, conditions: Conditions, most: int) -> Sequence[Sequence[Any]]:
        rows = citus_results.failure_rows if await runs_on_cluster(connection) else failure_rows
        found = (await connection.execute(rows(conditions, unit, passed, path).limit(most + 1))).all()
        failed = await connection.scalar(failed_attempts(conditions, passed))
        return [(False, *row) for row in found] + [(True, None, failed, 0)]

    return Summed(repr(("failures", question.passed)), question.query, 2, read, question.unit, [is_failed(passed)])


async def read_facets(sums: Sums, question: FacetsQuery, max_known_rows: int) -> AggregateResult:
    """Return the most frequent values of each field."""

    async def read(snapshot: SumsOfSnapshot) -> dict[str, Any]:
        return {
            name: await _facet(snapshot, question, field, max_known_rows) for name, field in question.fields.items()
        }

    facets = await sums.read(read)
    rows = [{"field": name, **value} for name, facet in facets.items() for value in facet["values"]]
    return AggregateResult({"facets": facets}, ("field", "value", "count"), rows)


async def _facet(snapshot: SumsOfSnapshot, question: FacetsQuery, field: Field, max_known_rows: int) -> Any:
    try:
        table = await snapshot.table(facet_sums(question.query, field), max_known_rows)
    except TooManyRowsError:
        value = log_value(field)
        statement = facet_rows(compile_filters(question.query, FACTORY_LOGS), value, question.limit)
        found = (await snapshot.connection.execute(statement)).all()
        total = int(found[0].total) if found else 0
        return as_facet([(canonical(row.value), row.logs) for row in found], total)
    counted = [(key[0], numbers[0]) for key, numbers in table.items()]
    counted.sort(key=lambda item: (-item[1], rank(item[0])))
    missing = [item for item in counted if item[0] == NULL]
    most = [item for item in counted if item[0] != NULL][: question.limit]
    return as_facet([*missing, *most], sum(logs for _, logs in counted))


def facet_sums(query: Query, field: Field) -> Summed:
    """Return the sums for a facet: how many logs contain each value, including null."""
    value = log_value(field)

    async def read(connection: AsyncConnection, conditions: Conditions, most: int) -> Sequence[Row[Any]]:
        return await fetched(connection, value_rows(conditions, value), most)

    return Summed(repr(("facet", field)), query, 1, read)


def as_facet(counts: Sequence[tuple[bytes, int]], total: int) -> dict[str, Any]:
    """Return the values of one field as JSON. Logs without a value are counted as null."""
    missing = sum(logs for value, logs in counts if value == NULL)
    values = [{"value": orjson.Fragment(value), "count": logs} for value, logs in counts if value != NULL]
    return {"values": values, "other": total - sum(logs for _, logs in counts), "missing": missing}


async def read_distribution(aggregates: Aggregates, question: DistributionQuery, max_rows: int) -> AggregateResult:
    """Return the distribution of a number in each group. Raises BadRequestError for more than `max_rows` groups."""
    logs = selection(question.query, None, question.by.values())
    number = field_number(question.field, FACTORY_LOGS, _TABLE)
    has_limits = question.lower is not None or question.upper is not None
    async with aggregates.snapshot() as connection:
        on_cluster = await runs_on_cluster(connection)
        if sample := await sample_condition(connection, logs.conditions, split_time(question.query)[1], max_rows):
            sampled = number_logs(logs.narrowed(sample), number, on_cluster=on_cluster)
            await limited(connection, number_rows(logs, sampled, None, None), max_rows)
        numbers = number_logs(logs, number, on_cluster=on_cluster)
        found = await limited(connection, number_rows(logs, numbers, question.lower, question.upper), max_rows)
        found = [row for row in found if row[len(question.by)] != "0"]  # without `by`, there is always a row
        moved = (await connection.execute(moving_range_rows(logs, numbers))).all() if found and has_limits else []
        histograms = await _histograms(connection, logs, numbers, question.bins, found)
    groups = [
        _group(row, question, moved[index][0] if moved else None) | {"histogram": histograms[index]}
        for index, row in enumerate(found)
    ]
    groups.sort(key=lambda group: [rank(canonical(group[name])) for name in question.by])
    columns = (*question.by, *MEASURES, "histogram", "below", "above", *INDICES)
    groups = [{name: group[name] for name in columns} for group in groups]
    return AggregateResult({"groups": groups}, columns, groups)


def _group(row: Sequence[Any], question: DistributionQuery, moved: str | None) -> dict[str, Any]:
    """Return the group of a row of `number_rows`. `moved` is the sum of its moving ranges, or None if it is not needed
    or there is a single number."""
    names = list(question.by)
    count, total, squares, least, greatest, percentiles, below, above = row[len(names) :]
    with localcontext(prec=DIGITS):
        mean, spread = mean_and_deviation(int(count), Fraction(total), Fraction(squares))
        short_term = None if moved is None else _decimal(Fraction(moved) / (int(count) - 1)) / D2
        potential, actual = capability(mean, short_term, question.lower, question.upper)
        overall_potential, overall_actual = capability(mean, spread, question.lower, question.upper)
    numbers = (exact(count), approximate(mean), approximate(spread), exact(least), exact(greatest))
    found = {name: shown(key) for name, key in zip(names, row, strict=False)}
    found |= dict(zip(MEASURES, (*numbers, *map(exact, percentiles)), strict=True))
    found["below"] = None if question.lower is None else below
    found["above"] = None if question.upper is None else above
    return found | dict(zip(INDICES, (potential, actual, overall_potential, overall_actual), strict=True))


def mean_and_deviation(count: int, total: Fraction, squares: Fraction) -> tuple[Decimal, Decimal | None]:
    """Return the mean and the sample standard deviation of numbers with this sum and this sum of squares, rounded to
    the precision of the context. The deviation of a single number is None."""
    mean = total / count
    if count == 1:
        return _decimal(mean), None
    return _decimal(mean), _decimal((squares - mean * total) / (count - 1)).sqrt()


def _decimal(number: Fraction) -> Decimal:
    return Decimal(number.numerator) / Decimal(number.denominator)


def capability(
    mean: Decimal, deviation: Decimal | None, lower: Decimal | None, upper: Decimal | None
) -> tuple[Any, Any]:
    """Return the potential and the actual capability: how often the spread fits between the limits, and between the
    mean and the nearer limit. Both are None without a spread. The potential capability is also None unless both limits
    are given."""
    if not deviation:
        return None, None
    potential = None if lower is None or upper is None else (upper - lower) / (6 * deviation)
    sides = ([] if lower is None else [mean - lower]) + ([] if upper is None else [upper - mean])
    actual = min(sides) / (3 * deviation) if sides else None
    return approximate(potential), approximate(actual)


async def _histograms(
    connection: AsyncConnection, logs: Selection, numbers: Subquery, bins: int, found: Sequence[Sequence[Any]]
) -> dict[int, list[dict[str, Any]]]:
    """Return the bins of each group, by the group's position."""
    if not found:
        return {}
    keys = len(logs.by)
    least = min((row[keys + 3] for row in found), key=Decimal)
    greatest = max((row[keys + 4] for row in found), key=Decimal)
    edges = bin_edges(least, greatest, bins)
    counts: defaultdict[int, dict[int, int]] = defaultdict(dict)
    for index, number_of_bin, logs_in_it in await connection.execute(
        histogram_rows(logs, numbers, [Decimal(edge) for edge in edges])
    ):
        counts[index - 1][number_of_bin - 1] = logs_in_it
    return {
        index: [
            {"from": exact(edges[each]), "to": exact(edges[each + 1]), "count": counts[index].get(each, 0)}
            for each in range(len(edges) - 1)
        ]
        for index in range(len(found))
    }


def bin_edges(least: str, greatest: str, bins: int) -> list[str]:
    """Return the edges of `bins` bins of equal width as JSON numbers, in ascending order. The inner edges are doubles,
    or the least or greatest value if no double lies between the two. If all values are equal, there is one bin."""
    low, high = Fraction(least), Fraction(greatest)
    if low == high:
        return [least, greatest]
    doubles = [repr(float(low + (high - low) * each / bins)) for each in range(1, bins)]
    inner = [least if Fraction(edge) < low else greatest if Fraction(edge) > high else edge for edge in doubles]
    return [least, *inner, greatest]


UNIT_COLUMNS = ("app_name", "logs", "attempts", "passed", "first", "last", "last_passed")
_IMEI = re.compile(IMEI_PATTERN)


async def read_unit(aggregates: Aggregates, product_imei: str) -> AggregateResult | None:
    """Return the history of a unit, or None if the unit has neither logs nor repairs."""
    if not _IMEI.fullmatch(product_imei):
        return None
    passed = log_value(resolve(PASSED, FACTORY_LOGS))
    async with aggregates.snapshot() as connection:
        found = (await connection.execute(unit_rows(product_imei, passed))).all()
        repairs = (await connection.execute(unit_repairs(product_imei))).scalars().all()
    if not found and not repairs:
        return None
    apps = [dict(zip(UNIT_COLUMNS, map(shown, row), strict=True)) for row in found]
    body: dict[str, Any] = {
        "product_imei": product_imei,
        "logs": sum(app["logs"] for app in apps),
        "first": shown(min(row[4] for row in found)) if found else None,
        "last": shown(max(row[5] for row in found)) if found else None,
        "apps": apps,
        "repairs": [orjson.Fragment(repair) for repair in repairs],
    }
    return AggregateResult(body, UNIT_COLUMNS, apps)

"""The SQL that all aggregates share: which logs, in which groups and time buckets; and the SQL of stats.

A sample of the logs shows early that a result would have too many groups, because the groups of a sample are groups of
all logs.

A bucket of days or weeks begins at midnight in its own time zone and is shown in UTC. The numbers of stats are
PostgreSQL's numeric: integers stay exact, and sums do not overflow as sums of doubles do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import (
    ARRAY,
    BigInteger,
    ClauseElement,
    ColumnElement,
    Executable,
    Float,
    FromClause,
    Interval,
    Select,
    Subquery,
    Text,
    UnaryExpression,
    any_,
    case,
    cast,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler

from factory_logs.db.citus import runs_on_cluster, shards_cost
from factory_logs.db.models import TIME, FactoryLog

UTC = "UTC"
_FIRST: ColumnElement[datetime] = literal_column("timestamp '0001-01-01'", TIME)
"""A Monday. It is SQL text and not a parameter, because asyncpg converts datetime.min and datetime.max to -infinity and
infinity."""
_LAST: ColumnElement[datetime] = literal_column(f"timestamp '{datetime.max}'", TIME)
_DAY = literal_column("interval '1 day'", Interval)


def bucket_start(time: ColumnElement[Any], length: timedelta, zone: str) -> ColumnElement[datetime]:
    """Return the beginning of the bucket that contains a time, in local time of the zone."""
    moment = func.least(func.greatest(time, _FIRST), _LAST, type_=TIME)
    local = moment if zone == UTC else _shifted(moment, UTC, zone)
    return func.date_bin(literal(length, Interval), local, _FIRST, type_=TIME)


def bucket_begin(start: ColumnElement[Any], zone: str) -> ColumnElement[datetime]:
    """Return the result of `bucket_start` in UTC."""
    if zone == UTC:
        return start
    begin = _shifted(start, zone, UTC)
    # If a midnight comes twice because a clock is put back, PostgreSQL uses the second one. The first one has the
    # offset of the day before.
    day_before = begin - _DAY
    first = start - (_shifted(day_before, UTC, zone) - day_before)
    found = case((_shifted(first, UTC, zone) == start, first), else_=begin)
    return func.greatest(found, _FIRST, type_=TIME)


def _shifted(moment: ColumnElement[Any], from_zone: str, to_zone: str) -> ColumnElement[datetime]:
    absolute = func.timezone(literal(from_zone, Text), moment, type_=TIMESTAMP(timezone=True))
    return func.timezone(literal(to_zone, Text), absolute, type_=TIME)


LOGS = FactoryLog.__table__


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects the logs that meet all `conditions`, grouped by the values `by` and, if `length` is given, by time
    buckets of that length in `zone`. All of these are expressions over the table of logs."""

    conditions: Sequence[ColumnElement[bool]] = ()
    by: Sequence[ColumnElement[Any]] = ()
    length: timedelta | None = None
    zone: str = "UTC"

    def narrowed(self, conditions: Sequence[ColumnElement[bool]]) -> "Selection":
        """Return the selection, narrowed to logs that also meet these conditions."""
        return replace(self, conditions=[*self.conditions, *conditions])

    def rows(self, *columns: ColumnElement[Any], **named: ColumnElement[Any]) -> Subquery:
        """Return one row for each log: the keys of its group, and these values."""
        keys = [value.label(f"by_{index}") for index, value in enumerate(self.by)]
        if self.length is not None:
            keys.insert(0, bucket_start(LOGS.c.timestamp, self.length, self.zone).label("bucket"))
        others = [value.label(name) for name, value in named.items()]
        return select(*keys, *columns, *others).select_from(LOGS).where(*self.conditions).subquery()

    def keys(self, rows: FromClause) -> list[ColumnElement[Any]]:
        """Return the columns of `rows` that identify a group."""
        bucket = [] if self.length is None else [rows.c.bucket]
        return bucket + [rows.c[f"by_{index}"] for index in range(len(self.by))]

    def shown(self, rows: FromClause) -> list[ColumnElement[Any]]:
        """Return the columns that identify a group as a client sees them, with buckets in UTC."""
        keys = self.keys(rows)
        if self.length is not None:
            keys[0] = bucket_begin(keys[0], self.zone).label("begin")
        return keys

    def order(self, rows: FromClause) -> list[UnaryExpression[Any]]:
        """Return the order of groups: nulls come last."""
        return [key.asc().nulls_last() for key in self.keys(rows)]


SAMPLE_RUN = 16
"""The consecutive ids in a sample: the logs of about one page of the table."""
LEAST_IDS = 10
LEAST_COST = 1.0
"""A sample is read only if there are at least this many ids for each of its logs, and if reading all logs costs at
least this much for each. Reading a log of the sample costs about 0.1, in the unit of PostgreSQL's planner."""


async def sampled(
    connection: AsyncConnection,
    conditions: Sequence[ColumnElement[bool]],
    begin: datetime | None,
    end: datetime | None,
    logs: int,
) -> ColumnElement[bool] | None:
    """Return the condition for a sample: about this many ids, spread over those of the logs from `begin` to before
    `end`; None is no bound. Return None if reading all logs that meet `conditions` does not take much longer."""
    first, last = (await connection.execute(_ends(begin, end))).one()
    if first is None or last - first < LEAST_IDS * logs:
        return None
    explained = (await connection.execute(_Explain(select(LOGS).where(*conditions)))).scalar_one()
    plan = orjson.loads(orjson.dumps(explained))[0]["Plan"]
    if (shards_cost(plan) if await runs_on_cluster(connection) else plan["Total Cost"]) < LEAST_COST * logs:
        return None
    runs = range(first, last, (last - first) // (logs // SAMPLE_RUN + 1))
    ids = [number for start in runs for number in range(start, start + SAMPLE_RUN)]
    return LOGS.c.factory_log_id == any_(literal(ids, ARRAY(BigInteger)))


def _ends(begin: datetime | None, end: datetime | None) -> Select[Any]:
    """Return a statement with the ids of the first and the last log of a range of time."""
    moment, number = LOGS.c.timestamp, LOGS.c.factory_log_id
    bounds: list[ColumnElement[bool]] = []
    if begin is not None:
        bounds.append(moment >= literal(begin, TIME))
    if end is not None:
        bounds.append(moment < literal(end, TIME))
    first = (number,) if begin is None else (moment, number)
    last = (number.desc(),) if end is None else (moment.desc(), number.desc())
    one: ColumnElement[int] = literal_column("1")
    return select(
        *(select(number).where(*bounds).order_by(*order).limit(one).scalar_subquery() for order in (first, last))
    )


class _Explain(Executable, ClauseElement):
    """The plan of a statement, as JSON."""

    inherit_cache = False

    def __init__(self, statement: Select[Any]) -> None:
        self.statement = statement


@compiles(_Explain, "postgresql")
def _explain(element: _Explain, compiler: SQLCompiler, **options: Any) -> str:
    return f"EXPLAIN (FORMAT JSON) {compiler.process(element.statement, **options)}"


PERCENTILES = (0.5, 0.95)


def count_rows(selection: Selection) -> Select[Any]:
    """Return a statement with one row for each bucket and group: the keys, and the number of logs.

    It sets no order: PostgreSQL does not know how few groups there are, and would sort all logs instead of the groups.
    """
    rows = selection.rows()
    counted = select(*selection.shown(rows), func.count().label("logs")).select_from(rows)
    return counted.group_by(*selection.keys(rows))


def group_rows(selection: Selection, numbers: Sequence[ColumnElement[Any]], *, on_cluster: bool) -> Select[Any]:
    """Return a statement with one row for each bucket and group, in their order: the keys, the number of logs, and for
    each of `numbers` its count, minimum, sum and maximum as text."""
    rows = selection.rows(**_named(numbers))
    rows = rows if on_cluster else computed_once(rows)
    measures = [measure for index in range(len(numbers)) for measure in _measures(rows.c[f"number_{index}"])]
    keys = selection.keys(rows)
    return (
        select(*selection.shown(rows), func.count().label("logs"), *measures)
        .select_from(rows)
        .group_by(*keys)
        .order_by(*selection.order(rows))
    )


def computed_once(rows: Subquery) -> Subquery:
    """Return the same rows, whose values PostgreSQL computes once for each row.

    Otherwise it would take a number out of the JSON of a log again for each measure, which takes most of the time. A
    Citus cluster would send these rows to the coordinator.
    """
    # PostgreSQL refuses a parallel plan for `OFFSET 0`, an integer that it has yet to convert to bigint.
    return select(rows).offset(literal_column("'0'")).subquery()


def percentile_rows(selection: Selection, numbers: Sequence[ColumnElement[Any]]) -> Select[Any]:
    """Return a statement with the same groups in the same order. For each of `numbers`, a row contains the PERCENTILES
    by nearest rank, as text."""
    rows = computed_once(selection.rows(**_named(numbers)))
    found: list[ColumnElement[Any]] = [
        cast(func.percentile_disc(literal(share, Float)).within_group(rows.c[f"number_{index}"]), Text)
        for index in range(len(numbers))
        for share in PERCENTILES
    ]
    keys = selection.keys(rows)
    return select(*found).select_from(rows).group_by(*keys).order_by(*selection.order(rows))


def _named(numbers: Sequence[ColumnElement[Any]]) -> dict[str, ColumnElement[Any]]:
    return {f"number_{index}": number for index, number in enumerate(numbers)}


def _measures(number: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    found = (func.count(number), func.min(number), func.sum(number), func.max(number))
    return [cast(measure, Text) for measure in found]

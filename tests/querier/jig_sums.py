"""Sums of every kind over the logs of test jigs, and the same sums by plain SQL."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow
from factory_logs.influxql.ast import Binary, Literal, Reference, Type
from factory_logs.influxql.constants import EARLIEST, LATEST
from factory_logs.influxql.schema import FieldKey, MeasurementSchema
from factory_logs.influxql.selection import Source, TimeBins
from factory_logs.ingest.validation import NewLog
from factory_logs.querier.aggregates import Aggregates, shown
from factory_logs.querier.catalog import APPS, PATHS, TAG_SETS
from factory_logs.querier.influxql.window_aggregates import window_sums
from factory_logs.querier.result_cache import ResultCache
from factory_logs.querier.results import facet_sums, failure_sums, yield_sums
from factory_logs.querier.stats import count_sums
from factory_logs.querier.sum_definitions import EPOCH, Summed
from factory_logs.querier.sum_tables import Table
from factory_logs.querier.sums import Sums, SumsOfSnapshot
from factory_logs.query import (
    FACTORY_LOGS,
    QueryLimits,
    compile_filters,
    parse_failures,
    parse_query,
    parse_stats,
    parse_yield,
)
from factory_logs.query.fields import resolve
from factory_logs.query.rewriting import split_time
from factory_logs.settings import Settings
from tests.conftest import CITUS_URL
from tests.querier.writers import Writers, insert

WITHOUT_SNAPSHOT = pytest.mark.skipif(
    CITUS_URL is not None, reason="on a cluster, each result is read in a snapshot of each node"
)
DAY = datetime(2024, 1, 1)
APP_NAMES = ("cit", "tiger", "koala")
MOST = 100_000
EAGER = {
    "count_look_seconds": 0.001,
    "known_sums_seconds": 0.0,
    "kept_count_seconds": 0.0,
    "max_known_counts": 12,
    "max_kept_counts": 16,
}


def new_log(number: int, repair_id: int | None = None) -> NewLog:
    """Return a log of a test jig: few units, some logs without a unit, and some that are not attempts."""
    unit = None if number % 11 == 0 else f"3520990000000{number % 17:02}"
    passed = {0: True, 1: False, 2: True, 3: "no"}[number % 4]
    fields: dict[str, Any] = {
        "passed": passed,
        "volt": {"value": number % 5, "pass": number % 3 > 0},
        "watt": number % 9 / 4,  # sums of quarters are exact
        "ok": number % 7 > 0,
    }
    tags: dict[str, Any] = {"n": [number % 7, "x", 1.5, None][number % 4]}
    if number == 13:  # paths that only this log has
        fields["only here"] = number
        tags["only here"] = number
    moment = DAY + timedelta(minutes=number % 1440)
    return NewLog(APP_NAMES[number % 3], unit, repair_id, moment, json.dumps(tags), json.dumps(fields))


class JigWriters(Writers):
    """The same writers, with logs of test jigs."""

    def _logs(self, most: int) -> list[NewRow]:
        return [
            NewRow(new_log(self._random.randrange(10_000), self._random.choice([None, *self._repairs])), None)
            for _ in range(self._random.randint(1, most))
        ]


def q(*filters: dict[str, Any], begin: int | None = None, end: int | None = None) -> str:
    """Return `q` with these filters and a range of minutes of the day."""
    times = [("op", ">=", begin), ("op", "<", end)]
    bounds = [
        {"name": "timestamp", "op": op, "val": str(DAY + timedelta(minutes=minute))}
        for _, op, minute in times
        if minute is not None
    ]
    return json.dumps({"filters": [*filters, *bounds]})


NANOSECONDS = 1_000
TIGER_SCHEMA = MeasurementSchema(
    {
        "watt": FieldKey({Type.FLOAT, Type.INTEGER}, [("watt",)]),
        "value": FieldKey({Type.INTEGER}, [("volt", "value")]),
        "ok": FieldKey({Type.BOOLEAN}, [("ok",)]),
    },
    {"n": [("n",)]},
)
NAMES = ("count", "sum", "min", "max", "first", "last", "min at", "max at")


def windows(q: str, length: timedelta, *tags: str, origin: timedelta = timedelta(0)) -> Summed:
    """Return all aggregates of InfluxQL over the logs of tiger in the time range of `q`, or of those that are ok."""
    query, span = split_time(parse_query(q, FACTORY_LOGS, QueryLimits()))
    condition = Binary("=", Reference("ok", Type.BOOLEAN), Literal(True)) if query.filters else None
    moments = (
        EARLIEST if span.begin is None else nanoseconds(span.begin - EPOCH),
        LATEST if span.end is None else nanoseconds(span.end - EPOCH) - NANOSECONDS,
    )
    source = Source("tiger", TIGER_SCHEMA, condition, *moments, tags)
    references = [Reference(name, field.type) for name, field in TIGER_SCHEMA.fields.items()]
    wanted = [(name, each) for each in references for name in NAMES if name != "sum" or each.type is not Type.BOOLEAN]
    return window_sums(source, TimeBins(nanoseconds(length), nanoseconds(origin)), wanted, wanted[:-1])


def nanoseconds(length: timedelta) -> int:
    return length // timedelta(microseconds=1) * NANOSECONDS


PART = 500
TIGER = {"name": "app_name", "op": "==", "val": "tiger"}
KINDS: dict[str, Callable[[str], Summed]] = {
    "yield": lambda q: yield_sums(parse_yield([("q", q)], FACTORY_LOGS, QueryLimits(), 10)),
    "yield by bucket": lambda q: yield_sums(
        parse_yield([("q", q), ("bucket", "6h"), ("by", "tags__n")], FACTORY_LOGS, QueryLimits(), 10)
    ),
    "yield of other units": lambda q: yield_sums(
        parse_yield([("q", q), ("unit", "tags__n"), ("passed", "fields__ok")], FACTORY_LOGS, QueryLimits(), 10)
    ),
    "failures": lambda q: failure_sums(parse_failures([("q", q)], FACTORY_LOGS, QueryLimits(), MOST)),
    "failures of repairs": lambda q: failure_sums(
        parse_failures([("q", q), ("unit", "repair_id")], FACTORY_LOGS, QueryLimits(), MOST)
    ),
    "stats": lambda q: count_sums(
        parse_stats(
            [("q", q), ("bucket", "6h"), ("by", "app_name"), ("by", "tags__n")], FACTORY_LOGS, QueryLimits(), 10
        )
    ),
    "facet": lambda q: facet_sums(parse_query(q, FACTORY_LOGS, QueryLimits()), resolve("tags__n", FACTORY_LOGS)),
    "windows": lambda q: windows(q, timedelta(minutes=90), "n"),
    "windows from minute 7": lambda q: windows(q, timedelta(minutes=45), origin=timedelta(minutes=7)),
    "values by tag": lambda q: windows(q, timedelta(0), "n"),
    "apps": lambda _: replace(APPS, part=PART),
    "paths": lambda _: replace(PATHS, part=PART),
    "tag sets": lambda _: replace(TAG_SETS, part=PART),
}


def worker(database: Database, **settings: object) -> AbstractAsyncContextManager[Sums]:
    """Run a worker that stores every sum at once."""
    return worker_with(database, EAGER | settings)


@asynccontextmanager
async def worker_with(database: Database, settings: Mapping[str, object]) -> AsyncIterator[Sums]:
    """Run a worker with these settings."""
    own = Settings().model_copy(update=settings)
    known = ResultCache(database, own)
    keeping = asyncio.create_task(known.run())
    try:
        yield Sums(known, Aggregates(database, own), own)
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def both(sums: Sums, summed: Summed) -> tuple[Table, Table]:
    """Return the sums, and the result of plain SQL in the same snapshot."""
    async with sums.snapshot() as snapshot:
        return await both_in(snapshot, summed)


async def both_in(snapshot: SumsOfSnapshot, summed: Summed) -> tuple[Table, Table]:
    return await snapshot.table(summed, MOST), await plain_table(snapshot, summed)


async def plain_table(snapshot: SumsOfSnapshot, summed: Summed) -> Table:
    plain: dict[Any, Any] = {}
    rows = await summed.read(snapshot.connection, compile_filters(summed.query, FACTORY_LOGS), MOST)
    values = summed.keys - (summed.bins is not None)
    for row in rows:
        key = (*summed.as_key(row[:values]), *row[values : summed.keys])
        numbers = tuple(map(shown, row[summed.keys :]))
        if any(numbers):
            assert key not in plain
            plain[key] = numbers
    return plain


async def store(database: Database, first: int, last: int) -> None:
    """Store logs with these numbers, which are their minutes and, in an empty table, their ids."""
    connection = await database.connect_raw()
    await insert(connection, [NewRow(new_log(number), None) for number in range(first, last + 1)])
    await connection.close()


async def differs(sums: Sums, summed: Summed) -> bool:
    """Return whether the cached sums still contain a log that was deleted without retention."""
    found, plain = await both(sums, summed)
    return found != plain


BEHIND_ITS_BACK = "delete from factory_logs where factory_log_id = 13"
"""Nothing in the service does this. The log is a failed attempt of a unit that has no other one."""

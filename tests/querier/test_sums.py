"""Cached sums equal plain SQL in the same snapshot while other clients write."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db import removals
from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow
from factory_logs.db.retention import START, remove_batch
from factory_logs.influxql.ast import Binary, Literal, Reference, Type
from factory_logs.influxql.constants import EARLIEST, LATEST
from factory_logs.influxql.schema import FieldKey, MeasurementSchema
from factory_logs.influxql.selection import Source, TimeBins
from factory_logs.ingest.validation import NewLog
from factory_logs.querier import sum_parts
from factory_logs.querier import sums as sums_module
from factory_logs.querier.aggregates import Aggregates, shown
from factory_logs.querier.catalog import APPS, PATHS, TABLES, TAG_SETS
from factory_logs.querier.influxql.window_aggregates import window_sums
from factory_logs.querier.result_cache import ResultCache
from factory_logs.querier.results import facet_sums, failure_sums, yield_sums
from factory_logs.querier.stats import count_sums
from factory_logs.querier.sum_parts import KnownParts
from factory_logs.querier.sum_tables import Table
from factory_logs.querier.sums import (
    EPOCH,
    StillReadingError,
    Summed,
    Sums,
    SumsOfSnapshot,
    TooManyRowsError,
    sums_name,
)
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
from tests.conftest import CITUS_URL, as_role
from tests.querier.writers import Writers, insert, run_sql, until_all_have_ended, until_kept

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
SMALL_BLOCK = 5
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


@asynccontextmanager
async def worker(database: Database, **settings: object) -> AsyncIterator[Sums]:
    own = Settings().model_copy(update={**EAGER, **settings})
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


def any_range(choose: random.Random) -> dict[str, int]:
    """Return a sliding range of time, or a random one."""
    begin = choose.choice([None, 100, 101, 103, 110, choose.randrange(1440)])
    end = choose.choice([None, None, 1300, 1310, choose.randrange(1440)])
    return {name: minute for name, minute in (("begin", begin), ("end", end)) if minute is not None}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_sums_are_exact_in_every_snapshot_under_concurrent_writes(
    database: Database, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removals, "BLOCK", PART // 4)
    await run_sql(database, "insert into repairs (product_imei, process) values ('352099001761481', 'Replaced')")
    writers, choose = JigWriters(database, seed), random.Random(seed)
    kinds = (writers.singles, writers.singles, writers.batches, writers.batches, writers.repairs, writers.retention)
    running = [asyncio.create_task(writers.run(kind)) for kind in kinds]
    try:
        async with worker(database) as first, worker(database) as second:
            for round_number in range(25):
                # As after a restart, the worker knows only the sums in the database.
                async with worker(database) as restarted:
                    for _ in range(6):
                        sums, kind = choose.choice([first, first, second, restarted]), choose.choice(list(KINDS))
                        filters = choose.choice([(), (TIGER,)])
                        summed = KINDS[kind](q(*filters, **any_range(choose)))
                        found, plain = await both(sums, summed)
                        assert found == plain, (round_number, kind)
        assert not any(task.done() for task in running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


@WITHOUT_SNAPSHOT
@pytest.mark.slow
async def test_results_without_a_snapshot_are_exact_too(database: Database) -> None:
    """A result is compared if no id was drawn and no log removed before plain SQL reads the same: always while no
    writer runs, and sometimes while writers run."""
    await run_sql(database, "insert into repairs (product_imei, process) values ('352099001761481', 'Replaced')")
    writers, choose = JigWriters(database, 7), random.Random(7)
    kinds = (writers.singles, writers.batches, writers.batches, writers.retention)
    are_known: list[bool] = []

    async def compare(sums: Sums, kind: str, *, is_quiet: bool) -> None:
        summed = KINDS[kind](q(**any_range(choose)))

        async def read(snapshot: SumsOfSnapshot) -> tuple[SumsOfSnapshot, Table]:
            return snapshot, await snapshot.table(summed, MOST)

        of, found = await sums.read(read)
        are_known.append(not isinstance(of.connection, AsyncConnection))
        async with sums.snapshot() as now:
            if (now.state, now.drawn) == (of.state, of.drawn) and (is_quiet or are_known[-1]):
                assert found == await plain_table(now, summed), (kind, is_quiet)
            else:
                assert not is_quiet

    async with worker(database) as first, worker(database) as second:
        for _ in range(12):
            running = [asyncio.create_task(writers.run(kind)) for kind in kinds]
            for _ in range(3):
                await compare(choose.choice([first, second]), choose.choice(list(KINDS)), is_quiet=False)
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            await until_all_have_ended(database)
            for kind in choose.sample(list(KINDS), 4):
                for sums in (first, second, first):
                    await compare(sums, kind, is_quiet=True)
    assert any(are_known)


@WITHOUT_SNAPSHOT
async def test_a_result_is_known_without_a_snapshot_until_a_log_comes(database: Database) -> None:
    await store(database, 1, 16)
    async with worker(database) as sums:
        for kind in KINDS:
            summed = KINDS[kind](q())
            assert [await is_without_snapshot(sums, summed) for _ in range(3)] == [False, True, True], kind
            await store(database, 30, 30)
            assert not await is_without_snapshot(sums, summed)


async def is_without_snapshot(sums: Sums, summed: Summed) -> bool:
    async def read(snapshot: SumsOfSnapshot) -> bool:
        await snapshot.table(summed, MOST)
        return not isinstance(snapshot.connection, AsyncConnection)

    return await sums.read(read)


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_only_new_logs_are_read(database: Database, kind: str) -> None:
    await store(database, 1, 16)
    summed = KINDS[kind](q())
    async with worker(database) as sums:
        assert not await differs(sums, summed)
        await run_sql(database, BEHIND_ITS_BACK)
        assert await differs(sums, summed)
        await store(database, 30, 30)
        if kind != "yield of other units":  # no index serves such a unit
            assert await differs(sums, summed)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["yield", "failures", "stats", "facet"])
async def test_a_sliding_time_range_reads_only_its_edges(database: Database, kind: str) -> None:
    await store(database, 1, 16)
    await store(database, 500, 510)
    async with worker(database) as sums:
        assert not await differs(sums, KINDS[kind](q(begin=2, end=1000)))
        await run_sql(database, BEHIND_ITS_BACK)
        for begin, end in ((3, 1002), (5, 1003), (4, 990)):
            assert await differs(sums, KINDS[kind](q(begin=begin, end=end)))
        assert not await differs(sums, KINDS[kind](q(begin=5, end=400))), "another range is read as a whole"


async def test_windows_of_other_ranges_are_added_and_left_out_as_a_whole(database: Database) -> None:
    kind = KINDS["windows from minute 7"]
    await store(database, 1, 16)
    await store(database, 500, 510)
    async with worker(database) as sums:
        assert not await differs(sums, kind(q(begin=2, end=600)))
        await run_sql(database, BEHIND_ITS_BACK)
        for begin, end in ((3, 1002), (None, 1002), (400, 1100), (5, 99)):
            assert await differs(sums, kind(q(begin=begin, end=end))) is (begin != 400)
        assert not await differs(sums, kind(q(begin=8, end=99))), "the logs before the first whole window are read"


async def test_windows_beyond_the_limit_of_rows_are_forgotten(database: Database) -> None:
    kind = KINDS["windows from minute 7"]
    await store(database, 1, 16)
    await store(database, 500, 510)
    async with worker(database, max_known_rows=1, kept_count_seconds=60.0) as sums:
        assert not await differs(sums, kind(q(begin=2, end=400)))
        await run_sql(database, BEHIND_ITS_BACK)
        assert await differs(sums, kind(q(begin=2, end=300)))
        assert not await differs(sums, kind(q(begin=200, end=600)))
        assert not await differs(sums, kind(q(begin=2, end=400)))


@pytest.mark.slow
@pytest.mark.parametrize("is_kept", [False, True])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_snapshot_does_not_use_results_of_a_newer_one(database: Database, kind: str, *, is_kept: bool) -> None:
    """Requests of one worker overlap: sums that one request caches hold for later snapshots, not for earlier ones.

    A mixture of both would be wrong for all later requests.
    """
    await store(database, 1, 16)
    async with worker(database, kept_count_seconds=0.0 if is_kept else 60.0) as sums:
        async with sums.snapshot() as older:
            await store(database, 1005, 1016)
            for _ in range(2):
                found, plain = await both(sums, KINDS[kind](q(end=1000)))
                assert found == plain
            if is_kept:
                await until_kept(database, 1)
            found, plain = await both_in(older, KINDS[kind](q(end=1010)))
            assert found == plain or CITUS_URL is not None  # a node's snapshot begins when the node is read
        for end in (1010, 1000, 1020):
            found, plain = await both(sums, KINDS[kind](q(end=end)))
            assert found == plain


async def test_an_older_snapshot_uses_the_results_known_to_it(database: Database) -> None:
    await store(database, 1, 16)
    summed = KINDS["stats"](q())
    async with worker(database, kept_count_seconds=60.0) as sums:
        assert not await differs(sums, summed)
        await run_sql(database, BEHIND_ITS_BACK)
        async with sums.snapshot() as older:
            await store(database, 17, 18)
            assert await differs(sums, summed)
            found, plain = await both_in(older, summed)
            assert found != plain
            assert sum(row[0] for row in found.values()) == 16


@pytest.mark.slow
async def test_a_slow_result_is_stored_and_survives_a_restart(database: Database) -> None:
    await store(database, 1, 16)
    async with worker(database) as sums:
        for kind in KINDS:
            assert not await differs(sums, KINDS[kind](q()))
        await until_kept(database, len(KINDS))
    await run_sql(database, BEHIND_ITS_BACK)
    async with worker(database) as restarted:
        for kind in KINDS:
            assert await differs(restarted, KINDS[kind](q())), kind


async def test_a_result_is_loaded_from_the_database_once(database: Database) -> None:
    await store(database, 1, 16)
    summed = KINDS["stats"](q())
    async with worker(database) as sums:
        assert not await differs(sums, summed)
        await until_kept(database, 1)
    async with worker(database, kept_count_seconds=60.0) as restarted:
        assert not await differs(restarted, summed)
        await run_sql(database, BEHIND_ITS_BACK, "delete from known_counts")
        assert await differs(restarted, summed)


async def test_a_fast_result_is_computed_again_after_a_restart(database: Database) -> None:
    await store(database, 1, 16)
    summed = KINDS["stats"](q())
    async with worker(database, known_sums_seconds=60.0) as sums:
        assert not await differs(sums, summed)
        await run_sql(database, BEHIND_ITS_BACK)
        assert not await differs(sums, summed)


@pytest.mark.parametrize("ids_a_second", [0, 10**12])
async def test_a_result_is_computed_again_if_that_is_faster_than_reading_the_new_logs(
    database: Database, monkeypatch: pytest.MonkeyPatch, ids_a_second: int
) -> None:
    monkeypatch.setattr(sums_module, "FEW_NEW_IDS", 4)
    monkeypatch.setattr(sums_module, "NEW_IDS_PER_SECOND", ids_a_second)
    await store(database, 1, 16)
    summed = KINDS["stats"](q())
    async with worker(database) as sums:
        assert not await differs(sums, summed)
        await run_sql(database, BEHIND_ITS_BACK)
        await store(database, 17, 20)
        assert await differs(sums, summed)
        await store(database, 21, 25)
        assert await differs(sums, summed) is bool(ids_a_second)


async def test_sums_are_computed_again_after_retention(database: Database) -> None:
    await store(database, 1, 16)
    async with worker(database) as sums:
        for kind in KINDS:
            assert not await differs(sums, KINDS[kind](q()))
        await run_sql(database, BEHIND_ITS_BACK)
        connection = await database.connect_raw()
        assert (await remove_batch(connection, DAY + timedelta(minutes=3), 10, START)).logs == 2
        await connection.close()
        for kind in KINDS:
            assert not await differs(sums, KINDS[kind](q()))
            assert not await differs(sums, KINDS[kind](q()))


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removals, "BLOCK", SMALL_BLOCK)


IN_PARTS = {"apps": APPS, "paths": PATHS, "tag sets": TAG_SETS}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("kind", IN_PARTS)
async def test_after_retention_only_the_parts_that_lost_logs_are_read_again(
    database: Database, kind: str, *, is_restarted: bool
) -> None:
    summed = replace(IN_PARTS[kind], part=SMALL_BLOCK)
    await store(database, 1, 16)
    async with worker(database) as sums, worker(database) as other:
        assert not await differs(sums, summed)
        await until_kept(database, 1)
        used = other if is_restarted else sums
        await run_sql(database, BEHIND_ITS_BACK)
        connection = await database.connect_raw()
        assert (await remove_batch(connection, DAY + timedelta(minutes=3), 10, START)).logs == 2
        found, plain = await both(used, summed)
        if kind == "apps":
            assert sum(row[0] for row in found.values()) == sum(row[0] for row in plain.values()) + 1
        else:
            assert {b"only here" in key[1] for key in found.keys() - plain.keys()} >= {True}
            assert plain.keys() <= found.keys()
        assert (await remove_batch(connection, DAY + timedelta(minutes=11), 10, START)).logs == 8
        assert await differs(used, summed)
        assert (await remove_batch(connection, DAY + timedelta(minutes=12), 10, START)).logs == 1
        assert not await differs(used, summed), "the part of the log 13 has lost a log"
        await connection.close()


@pytest.mark.usefixtures("small_blocks")
async def test_logs_that_an_older_version_has_removed_make_all_parts_invalid(database: Database) -> None:
    summed = replace(PATHS, part=SMALL_BLOCK)
    await store(database, 1, 16)
    async with worker(database) as sums:
        assert not await differs(sums, summed)
        await run_sql(
            database, BEHIND_ITS_BACK, "insert into retention_runs (cutoff, removed) values ('2024-01-01', 1)"
        )
        assert not await differs(sums, summed)


@pytest.mark.usefixtures("small_blocks")
async def test_parts_are_merged_if_they_have_too_many_rows_together(database: Database) -> None:
    summed = replace(APPS, part=SMALL_BLOCK)
    await store(database, 1, 100)
    async with worker(database, max_known_rows=20) as sums:
        assert not await differs(sums, summed)
        (known,) = (fact for fact in sums._known.facts().values() if isinstance(fact, KnownParts))
        assert sum(len(part.table) for part in known.parts) <= 20
        assert len(known.parts) > 2
        connection = await database.connect_raw()
        for minute in range(1, 100, 7):
            await remove_batch(connection, DAY + timedelta(minutes=minute), 10, START)
            assert not await differs(sums, summed)
        await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("change", ["truncate factory_logs", "truncate factory_logs restart identity"])
async def test_an_emptied_table_is_read_again(database: Database, change: str) -> None:
    await store(database, 1, 16)
    async with worker(database) as sums:
        for kind in KINDS:
            assert not await differs(sums, KINDS[kind](q()))
        await run_sql(database, change)
        await store(database, 20, 30)
        for kind in KINDS:
            assert not await differs(sums, KINDS[kind](q()))


@pytest.mark.slow
async def test_logs_above_the_watermark_of_a_long_transaction_are_read_each_time(database: Database) -> None:
    await store(database, 1, 5)
    slow = await database.connect_raw()
    async with worker(database) as sums:
        transaction = slow.transaction()
        await transaction.start()
        await insert(slow, [NewRow(new_log(6), None)])
        await store(database, 7, 16)
        for kind in KINDS:
            assert not await differs(sums, KINDS[kind](q()))
        await transaction.commit()
        for kind in KINDS:
            assert not await differs(sums, KINDS[kind](q()))
    await slow.close()


@pytest.mark.parametrize("bound", [{"max_known_rows": 2}, {"max_known_bytes": 1}, {"max_known_counts": 1}])
async def test_the_known_results_are_limited(database: Database, bound: dict[str, int]) -> None:
    await store(database, 1, 16)
    async with worker(database, kept_count_seconds=60.0, **bound) as sums:
        assert not await differs(sums, KINDS["stats"](q()))
        assert not await differs(sums, KINDS["facet"](q()))
        await run_sql(database, BEHIND_ITS_BACK)
        assert not await differs(sums, KINDS["stats"](q()))


async def test_the_stored_results_are_limited_in_bytes(database: Database) -> None:
    await store(database, 1, 16)
    async with worker(database, max_kept_bytes=200) as sums:
        for begin in range(5):
            await both(sums, KINDS["facet"](q({"name": "factory_log_id", "op": ">", "val": begin})))
            await asyncio.sleep(0.1)
    async with database.connect() as connection:
        kept, size = (
            await connection.execute(text("select count(*), sum(octet_length(content)) from known_counts"))
        ).one()
    assert 0 < kept < 5
    assert size <= 200


async def test_too_many_rows_are_refused_and_not_read_again(database: Database) -> None:
    await store(database, 1, 16)
    summed = KINDS["stats"](q())
    async with worker(database) as sums:
        for _ in range(2):
            async with sums.snapshot() as snapshot:
                with pytest.raises(TooManyRowsError):
                    await snapshot.table(summed, 2)
            await run_sql(database, "delete from factory_logs where factory_log_id > 1")


async def test_many_parts_are_merged_and_stay_exact(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sum_parts, "MOST_PARTS", 3)
    await store(database, 1, 16)
    async with worker(database) as sums:
        for summed in (replace(table, part=2) for table in TABLES):
            assert not await differs(sums, summed)
            known = sums.recall(sums_name(summed, summed.query))
            assert isinstance(known, KnownParts)
            assert len(known.parts) <= 3
            assert (known.parts[0].begin, known.up_to) == (0, 16)


async def test_too_many_rows_in_a_later_part_are_not_read_again(database: Database) -> None:
    await store(database, 1, 16)
    summed = replace(PATHS, part=5)
    async with worker(database) as sums:
        found, _ = await both(sums, replace(summed, name="counted before"))
        for _ in range(2):
            async with sums.snapshot() as snapshot:
                with pytest.raises(TooManyRowsError):
                    await snapshot.table(summed, len(found) - 1)
            await run_sql(database, "delete from factory_logs where factory_log_id > 1")


async def test_a_read_in_parts_continues_with_the_next_request(database: Database) -> None:
    await store(database, 1, 16)
    summed = replace(PATHS, part=5)
    async with worker(database, statement_timeout_seconds=-1.0) as sums:
        for reached in (5, 10, 15):
            async with sums.snapshot() as snapshot:
                with pytest.raises(StillReadingError) as error:
                    await snapshot.table(summed, MOST)
            assert (error.value.up_to, error.value.goal) == (reached, 16)
    async with worker(database) as sums:
        assert not await differs(sums, summed)


async def test_a_read_only_role_gets_sums(database: Database, migrated_url: str) -> None:
    await store(database, 1, 16)
    await run_sql(database, "create role onlooker login", "grant select on all tables in schema public to onlooker")
    reader = Database(as_role(migrated_url, "onlooker"), Settings())
    try:
        async with worker(reader) as sums:
            for kind in KINDS:
                assert not await differs(sums, KINDS[kind](q()))
                assert not await differs(sums, KINDS[kind](q()))
        await until_kept(database, 0)
    finally:
        await reader.dispose()
        await run_sql(database, "drop owned by onlooker", "drop role onlooker")

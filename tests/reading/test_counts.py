"""`num_results` is what count(*) gives in the same snapshot, whoever writes meanwhile (SPEC 5)."""

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db import counts as kept_counts
from factory_logs.db.counts import current_state
from factory_logs.db.engine import Database
from factory_logs.db.log_writes import NewRow, insert_logs
from factory_logs.db.retention import START, remove_batch
from factory_logs.embedded import running
from factory_logs.ingest.records import NewLog
from factory_logs.query import FACTORY_LOGS, Limits, compile_count, compile_rows, parse_query
from factory_logs.reading.counts import MAX_ATTEMPTS, LogCounts
from factory_logs.settings import Settings

DAY = datetime(2024, 1, 1)
APPS = ("cit", "tiger", "koala")
QUERIES: list[dict[str, Any]] = [
    {},
    {"filters": [{"name": "app_name", "op": "==", "val": "cit"}]},
    {"filters": [{"name": "timestamp", "op": ">=", "val": "2024-01-01T12:00:00"}]},
    {"filters": [{"name": "tags__n", "op": "<", "val": 3}, {"name": "app_name", "op": "!=", "val": "koala"}]},
    {"filters": [{"name": "app_name", "op": "!=", "val": "koala"}, {"name": "tags__n", "op": "<", "val": 3}]},
    {"filters": [{"name": "repair__process", "op": "has", "val": "Replaced"}]},
    {"filters": [{"not": {"name": "repair", "op": "has", "val": {"name": "process", "op": "==", "val": "Replaced"}}}]},
    {"filters": [{"name": "factory_log_id", "op": "<=", "val": 300}]},
    {"filters": [{"name": "app_name", "op": "in", "val": []}]},
    {"offset": 40},
    {"limit": 60},
    {"limit": 60, "offset": 50, "filters": [{"name": "app_name", "op": "==", "val": "tiger"}]},
    {"group_by": [{"field": "app_name"}]},
]


def log(number: int, repair_id: int | None = None) -> NewLog:
    moment = DAY + timedelta(minutes=number % 1440)
    return NewLog(APPS[number % 3], None, repair_id, moment, json.dumps({"n": number % 7}), None)


async def counted(counts: LogCounts, connection: AsyncConnection, q: dict[str, Any]) -> tuple[int, int]:
    """What is found of `q`, and what count(*) finds, in one snapshot."""
    query = parse_query(json.dumps(q), FACTORY_LOGS, Limits())
    for attempt in range(MAX_ATTEMPTS + 1):
        count = await counts.prepare(query, attempt)
        await connection.execute(text("begin isolation level repeatable read"))
        total = count.total((await connection.execute(count.statement)).one())
        truth = (await connection.execute(compile_count(query, FACTORY_LOGS))).scalar_one()
        rows = [
            [row[0] for row in await connection.execute(compile_rows(query, FACTORY_LOGS, lowest).limit(5))]
            for lowest in (count.on_top and count.on_top.lowest, None)
        ]
        await connection.execute(text("commit"))
        if total is not None:
            assert rows[0] == rows[1]
            return total, truth
    pytest.fail("the last attempt did not hold")


@asynccontextmanager
async def reading(database: Database) -> AsyncIterator[AsyncConnection]:
    async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        yield connection


EAGER = {"count_look_seconds": 0.001, "kept_count_seconds": 0.0, "max_known_counts": 6, "max_kept_counts": 8}


@asynccontextmanager
async def worker(database: Database, **settings: object) -> AsyncIterator[LogCounts]:
    counts = LogCounts(database, Settings().model_copy(update={**EAGER, **settings}))
    keeping = asyncio.create_task(counts.run())
    try:
        yield counts
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


class Writers:
    """Everybody who writes: singles and batches, some of which fail, some of which take long; repairs; retention."""

    def __init__(self, database: Database, seed: int) -> None:
        self._database = database
        self._random = random.Random(seed)
        self._repairs = [1]

    async def run(self, writer: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        connection = await self._database.connect_raw()
        await connection.execute("set synchronous_commit to off")
        try:
            while True:
                await writer(connection)
                await asyncio.sleep(self._random.random() * 0.003)
        finally:
            connection.terminate()

    def _logs(self, most: int) -> list[NewRow]:
        return [
            NewRow(log(self._random.randrange(10_000), self._random.choice([None, *self._repairs])), None)
            for _ in range(self._random.randint(1, most))
        ]

    async def singles(self, connection: asyncpg.Connection) -> None:
        await insert_logs(connection, self._logs(3))

    async def batches(self, connection: asyncpg.Connection) -> None:
        """Draws ids, lets others draw higher ones, and commits or not."""
        transaction = connection.transaction()
        await transaction.start()
        for _ in range(self._random.randint(1, 3)):
            await insert_logs(connection, self._logs(5))
            await asyncio.sleep(self._random.choice([0, 0, 0.002, 0.05]))
        await (transaction.rollback() if self._random.random() < 0.3 else transaction.commit())

    async def repairs(self, connection: asyncpg.Connection) -> None:
        process = self._random.choice(["Replaced", "Repossessed"])
        add = "insert into repairs (product_imei, process) values ('352099001761481', $1) returning repair_id"
        async with connection.transaction():
            repair_id = await connection.fetchval(add, process)
            await insert_logs(connection, [NewRow(log(1, repair_id), None)])
        self._repairs = [*self._repairs[-5:], repair_id]
        await asyncio.sleep(0.02)

    async def retention(self, connection: asyncpg.Connection) -> None:
        cutoff = DAY + timedelta(minutes=self._random.randrange(1440))
        removal = START
        for _ in range(self._random.randint(1, 3)):
            removal = await remove_batch(connection, cutoff, 7, removal)
        await asyncio.sleep(self._random.choice([0.02, 0.2]))


@pytest.mark.parametrize("seed", range(2))
async def test_counts_are_exact_in_every_snapshot_whoever_writes(database: Database, seed: int) -> None:
    writers = Writers(database, seed)
    async with database.begin() as connection:
        await connection.execute(text("insert into repairs (product_imei, process) values ('1', 'Replaced')"))
    kinds = [writers.singles, *[writers.batches] * 4, writers.repairs, writers.retention]
    running = [asyncio.create_task(writers.run(writer)) for writer in kinds]
    choose = random.Random(seed)
    try:
        async with worker(database) as first, worker(database) as second:
            for round_number in range(8):
                async with worker(database) as restarted, reading(database) as connection:
                    for _ in range(20):
                        counts, q = choose.choice([first, first, second, restarted]), choose.choice(QUERIES)
                        found, truth = await counted(counts, connection, q)
                        assert found == truth, (round_number, q)
        assert not any(task.done() for task in running)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


CIT = {"filters": [{"name": "app_name", "op": "==", "val": "cit"}]}


async def store(database: Database, logs: int) -> None:
    connection = await database.connect_raw()
    await insert_logs(connection, [NewRow(log(3 * number), None) for number in range(logs)])
    await connection.close()


async def run_sql(database: Database, *statements: str) -> None:
    async with database.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def found(counts: LogCounts, database: Database, q: dict[str, Any] = CIT) -> int:
    async with reading(database) as connection:
        return (await counted(counts, connection, q))[0]


BEHIND_ITS_BACK = "delete from factory_logs where factory_log_id = 2"
"""Nothing in the service does this. It shows whether a log is counted again."""


async def test_only_what_is_new_is_counted(database: Database) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        assert await found(counts, database) == 5
        await run_sql(database, BEHIND_ITS_BACK)
        await store(database, 3)
        assert await found(counts, database) == 8
        assert await found(counts, database, {"limit": 7} | CIT) == 7
        assert await found(counts, database, {"offset": 7} | CIT) == 1


async def test_a_limit_bounds_the_work_where_nothing_is_known(database: Database) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        assert await found(counts, database, {"limit": 3} | CIT) == 3
        await run_sql(database, BEHIND_ITS_BACK)
        assert await found(counts, database, {"limit": 9} | CIT) == 4


async def test_logs_behind_a_transaction_that_takes_long_are_counted_each_time(database: Database) -> None:
    await store(database, 5)
    slow = await database.connect_raw()
    async with worker(database) as counts:
        transaction = slow.transaction()
        await transaction.start()
        await insert_logs(slow, [NewRow(log(0), None)])
        await store(database, 3)
        assert await found(counts, database) == 8
        await transaction.commit()
        assert await found(counts, database) == 9
    await slow.close()


async def until_kept(database: Database, counts: int) -> None:
    for _ in range(200):
        async with database.connect() as connection:
            if await connection.scalar(text("select count(*) from known_counts")) == counts:
                return
        await asyncio.sleep(0.02)
    pytest.fail(f"there never were {counts} kept counts")


async def test_what_took_long_to_count_survives_a_restart(database: Database) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        assert await found(counts, database) == 5
        await until_kept(database, 1)
    await run_sql(database, BEHIND_ITS_BACK)
    await store(database, 3)
    async with worker(database) as restarted:
        assert await found(restarted, database) == 8


async def test_what_took_less_is_counted_again_after_a_restart(database: Database) -> None:
    await store(database, 5)
    async with worker(database, kept_count_seconds=60) as counts:
        assert await found(counts, database) == 5
    await run_sql(database, BEHIND_ITS_BACK)
    async with worker(database) as restarted:
        assert await found(restarted, database) == 4


@pytest.mark.parametrize("change", ["truncate factory_logs", "truncate factory_logs restart identity"])
async def test_a_table_that_was_emptied_is_counted_anew(database: Database, change: str) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        assert await found(counts, database) == 5
        await until_kept(database, 1)
        await run_sql(database, change)
        await store(database, 3)
        assert await found(counts, database) == 3
        async with worker(database) as restarted:
            assert await found(restarted, database) == 3


async def test_a_sequence_that_gives_ids_in_advance_settles_nothing(database: Database) -> None:
    change = "alter sequence factory_logs_factory_log_id_seq cache"
    await run_sql(database, f"{change} 10")
    try:
        first, second = await database.connect_raw(), await database.connect_raw()
        async with worker(database) as counts:
            for connection in (first, second, first):  # ids 1, 11, 2
                await insert_logs(connection, [NewRow(log(0), None)])
            assert await found(counts, database) == 3
            await insert_logs(first, [NewRow(log(0), None)])
            assert await found(counts, database) == 4
        await first.close()
        await second.close()
    finally:
        await run_sql(database, f"{change} 1")


async def test_no_more_filters_are_known_than_the_limit(database: Database) -> None:
    await store(database, 5)
    queries = [{"filters": [{"name": "repair_id", "op": "!=", "val": n}]} for n in range(3)] + [CIT]
    async with worker(database, max_known_counts=1, kept_count_seconds=60) as counts:
        assert [await found(counts, database, q) for q in queries] == [0, 0, 0, 5]
        await run_sql(database, BEHIND_ITS_BACK)
        assert await found(counts, database) == 5
        assert await found(counts, database, {}) == 4
        assert await found(counts, database) == 4


async def test_no_more_counts_are_kept_than_the_limit(database: Database) -> None:
    await store(database, 5)
    async with worker(database, max_kept_counts=2) as counts:
        for number in range(3):
            await found(counts, database, {"filters": [{"name": "repair_id", "op": "!=", "val": number}]})
            await until_kept(database, min(number + 1, 2))
        await found(counts, database)
        await asyncio.sleep(0.1)
        await until_kept(database, 2)
    await run_sql(database, BEHIND_ITS_BACK)
    async with worker(database) as restarted:
        assert await found(restarted, database) == 5


async def test_the_count_of_all_logs_stays_known_when_retention_takes_some_away(database: Database) -> None:
    await store(database, 9)
    async with worker(database) as counts:
        assert await found(counts, database, {}) == 9
        await until_kept(database, 1)
        connection = await database.connect_raw()
        removal = await remove_batch(connection, DAY + timedelta(minutes=7), 2, START)
        assert (await remove_batch(connection, DAY + timedelta(minutes=7), 2, removal)).logs == 1
        await connection.close()
        await run_sql(database, "delete from factory_logs where factory_log_id = 9")
        for worker_of_then_or_now in (counts, LogCounts(database, Settings().model_copy(update=EAGER))):
            assert await found(worker_of_then_or_now, database, {}) == 6
            assert await found(worker_of_then_or_now, database) == 5


async def test_a_role_that_may_only_read_gets_its_counts(database: Database, migrated_url: str) -> None:
    await store(database, 5)
    await run_sql(database, "create role onlooker login", "grant select on all tables in schema public to onlooker")
    reader = Database(migrated_url.replace("://factory_logs@", "://onlooker@"), Settings())
    try:
        async with worker(reader) as counts:
            assert [await found(counts, reader) for _ in range(3)] == [5, 5, 5]
            await asyncio.sleep(0.1)
        await until_kept(database, 0)
    finally:
        await reader.dispose()
        await run_sql(database, "drop owned by onlooker", "drop role onlooker")


async def test_a_worker_whose_counts_a_newer_version_does_not_take_goes_on_without_keeping_them(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the workers of revision 0030 do beside 0031, which has a column more that must not be null."""
    refused = asyncio.Event()

    async def keep(*arguments: Any) -> None:
        try:
            await really_keep(*arguments)
        except IntegrityError:
            refused.set()
            raise

    really_keep = kept_counts.keep
    monkeypatch.setattr(kept_counts, "keep", keep)
    await store(database, 5)
    await run_sql(database, "alter table known_counts add column newer bigint not null")
    try:
        async with worker(database) as counts:
            assert [await found(counts, database) for _ in range(3)] == [5, 5, 5]
            await asyncio.wait_for(refused.wait(), 20)
            assert await found(counts, database) == 5
            await run_sql(database, "alter table known_counts drop column newer")
            assert await found(counts, database, {}) == 5
            await until_kept(database, 1)
    finally:
        await run_sql(database, "alter table known_counts drop column if exists newer")


async def test_a_crash_of_the_server_is_another_run_of_it(short_tmp: Path) -> None:
    """Ids that were drawn by transactions which did not wait for the disk may be given out again after it."""
    with running(short_tmp / "crash") as url:
        connection = await asyncpg.connect(url)
        await connection.execute("create table factory_logs (); create table retention_runs (removed int)")
        before = await current_state(connection)
        assert await current_state(connection) == before
        witness = await asyncpg.connect(url)
        os.kill(connection.get_server_pid(), signal.SIGKILL)
        connection.terminate()
        await until_closed(witness)  # before that the server lets others in, to end them with the rest
        connection = await until_connected(url)
        after = await current_state(connection)
        await connection.close()
    assert not after.same_table(before)
    assert after.file == before.file


async def until_closed(connection: asyncpg.Connection) -> None:
    async with asyncio.timeout(120):
        while not connection.is_closed():
            await asyncio.sleep(0.01)


async def until_connected(url: str) -> asyncpg.Connection:
    async with asyncio.timeout(120):
        while True:
            with suppress(asyncpg.PostgresError, OSError, TimeoutError):
                return await asyncpg.connect(url, timeout=5)
            await asyncio.sleep(0.05)

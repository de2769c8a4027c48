"""`num_results` equals count(*) in the same snapshot while other clients write (docs/reference/http-api.md#pages)."""

import asyncio
import json
import os
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db import count_cache
from factory_logs.db.count_cache import current_state
from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow
from factory_logs.db.retention import START, bring_back, remove_batch, remove_logs
from factory_logs.embedded import running
from factory_logs.querier.counts import MAX_ATTEMPTS, LogCounts
from factory_logs.querier.result_cache import ResultCache
from factory_logs.query import FACTORY_LOGS, QueryLimits, compile_count, compile_rows, parse_query
from factory_logs.settings import Settings
from tests.conftest import CITUS_URL, ONE_SNAPSHOT, as_role
from tests.querier.writers import DAY, QUERIES, Writers, archived, insert, log, run_sql, until_kept


async def counted(counts: LogCounts, connection: AsyncConnection, q: dict[str, Any]) -> tuple[int, int]:
    """Return the cached count of `q` and count(*), in one snapshot."""
    query = parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits())
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
    eager = Settings().model_copy(update={**EAGER, **settings})
    known = ResultCache(database, eager)
    counts = LogCounts(known, eager)
    keeping = asyncio.create_task(known.run())
    try:
        yield counts
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@ONE_SNAPSHOT
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
async def test_counts_are_exact_in_every_snapshot_under_concurrent_writes(database: Database, seed: int) -> None:
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
    await insert(connection, [NewRow(log(3 * number), None) for number in range(logs)])
    await connection.close()


async def found(counts: LogCounts, database: Database, q: dict[str, Any] = CIT) -> int:
    async with reading(database) as connection:
        return (await counted(counts, connection, q))[0]


BEHIND_ITS_BACK = "delete from factory_logs where factory_log_id = 2"
"""Nothing in the service does this. It shows whether a log is counted again."""


async def test_only_new_logs_are_counted(database: Database) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        assert await found(counts, database) == 5
        await run_sql(database, BEHIND_ITS_BACK)
        await store(database, 3)
        assert await found(counts, database) == 8
        assert await found(counts, database, {"limit": 7} | CIT) == 7
        assert await found(counts, database, {"offset": 7} | CIT) == 1


async def test_a_limit_bounds_the_work_if_no_count_is_known(database: Database) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        assert await found(counts, database, {"limit": 3} | CIT) == 3
        await run_sql(database, BEHIND_ITS_BACK)
        assert await found(counts, database, {"limit": 9} | CIT) == 4


async def test_logs_above_the_watermark_of_a_long_transaction_are_counted_each_time(database: Database) -> None:
    await store(database, 5)
    slow = await database.connect_raw()
    async with worker(database) as counts:
        transaction = slow.transaction()
        await transaction.start()
        await insert(slow, [NewRow(log(0), None)])
        await store(database, 3)
        assert await found(counts, database) == 8
        await transaction.commit()
        assert await found(counts, database) == 9
    await slow.close()


async def test_a_slow_count_is_stored_and_survives_a_restart(database: Database) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        assert await found(counts, database) == 5
        await until_kept(database, 1)
    await run_sql(database, BEHIND_ITS_BACK)
    await store(database, 3)
    async with worker(database) as restarted:
        assert await found(restarted, database) == 8


async def test_a_fast_count_is_computed_again_after_a_restart(database: Database) -> None:
    await store(database, 5)
    async with worker(database, kept_count_seconds=60) as counts:
        assert await found(counts, database) == 5
    await run_sql(database, BEHIND_ITS_BACK)
    async with worker(database) as restarted:
        assert await found(restarted, database) == 4


@pytest.mark.parametrize("change", ["truncate factory_logs", "truncate factory_logs restart identity"])
async def test_an_emptied_table_is_counted_again(database: Database, change: str) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        assert await found(counts, database) == 5
        await until_kept(database, 1)
        await run_sql(database, change)
        await store(database, 3)
        assert await found(counts, database) == 3
        async with worker(database) as restarted:
            assert await found(restarted, database) == 3


@pytest.mark.skipif(CITUS_URL is not None, reason="Citus refuses to alter the sequence of a distributed table")
async def test_counts_are_exact_if_the_sequence_caches_ids(database: Database) -> None:
    change = "alter sequence factory_logs_factory_log_id_seq cache"
    await run_sql(database, f"{change} 10")
    try:
        first, second = await database.connect_raw(), await database.connect_raw()
        async with worker(database) as counts:
            for connection in (first, second, first):  # ids 1, 11, 2
                await insert(connection, [NewRow(log(0), None)])
            assert await found(counts, database) == 3
            await insert(first, [NewRow(log(0), None)])
            assert await found(counts, database) == 4
        await first.close()
        await second.close()
    finally:
        await run_sql(database, f"{change} 1")


async def test_filters_that_differ_only_in_values_share_statements_for_their_counts(database: Database) -> None:
    await store(database, 5)
    async with worker(database) as counts:
        for app, logs in (("cit", 5), ("CIT", 0)):
            assert await found(counts, database, {"filters": [{"name": "app_name", "op": "==", "val": app}]}) == logs
        assert len(counts._statements) == 2  # for the name of a count, and for counting


async def test_the_number_of_known_filters_is_limited(database: Database) -> None:
    await store(database, 5)
    queries = [{"filters": [{"name": "repair_id", "op": "!=", "val": n}]} for n in range(3)] + [CIT]
    async with worker(database, max_known_counts=1, kept_count_seconds=60) as counts:
        assert [await found(counts, database, q) for q in queries] == [0, 0, 0, 5]
        await run_sql(database, BEHIND_ITS_BACK)
        assert await found(counts, database) == 5
        assert await found(counts, database, {}) == 4
        assert await found(counts, database) == 4


async def test_the_number_of_stored_counts_is_limited(database: Database) -> None:
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


async def test_the_count_of_all_logs_stays_known_when_retention_removes_some(database: Database) -> None:
    await store(database, 9)
    async with worker(database) as counts:
        assert await found(counts, database, {}) == 9
        await until_kept(database, 1)
        connection = await database.connect_raw()
        removal = await remove_batch(connection, DAY + timedelta(minutes=7), 2, START)
        assert (await remove_batch(connection, DAY + timedelta(minutes=7), 2, removal)).logs == 1
        await connection.close()
        await run_sql(database, "delete from factory_logs where factory_log_id = 9")
        eager = Settings().model_copy(update=EAGER)
        for worker_of_then_or_now in (counts, LogCounts(ResultCache(database, eager), eager)):
            assert await found(worker_of_then_or_now, database, {}) == 6
            assert await found(worker_of_then_or_now, database) == 5


async def test_the_count_of_all_logs_stays_known_when_archived_logs_are_imported(database: Database) -> None:
    await store(database, 9)
    connection = await database.connect_raw()
    ids, lines = await archived(connection, 3)
    assert (await remove_logs(connection, ids, DAY, START)).logs == 3
    async with worker(database) as counts:
        assert await found(counts, database, {}) == 6
        await until_kept(database, 1)
        assert (await bring_back(connection, lines, START)).logs == 3
        assert (await bring_back(connection, lines, START)).logs == 0
        await connection.close()
        await run_sql(database, "delete from factory_logs where factory_log_id = 9")
        eager = Settings().model_copy(update=EAGER)
        for worker_of_then_or_now in (counts, LogCounts(ResultCache(database, eager), eager)):
            assert await found(worker_of_then_or_now, database, {}) == 9
            assert await found(worker_of_then_or_now, database) == 8


async def test_a_read_only_role_gets_counts(database: Database, migrated_url: str) -> None:
    await store(database, 5)
    await run_sql(database, "create role onlooker login", "grant select on all tables in schema public to onlooker")
    reader = Database(as_role(migrated_url, "onlooker"), Settings())
    try:
        async with worker(reader) as counts:
            assert [await found(counts, reader) for _ in range(3)] == [5, 5, 5]
            await asyncio.sleep(0.1)
        await until_kept(database, 0)
    finally:
        await reader.dispose()
        await run_sql(database, "drop owned by onlooker", "drop role onlooker")


async def test_a_worker_continues_if_a_newer_version_does_not_accept_its_counts(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Write like the workers of revision 0030 while revision 0031 is in place, which has another column that must not
    be null."""
    refused = asyncio.Event()

    async def save(*arguments: Any) -> None:
        try:
            await really_save(*arguments)
        except IntegrityError:
            refused.set()
            raise

    really_save = count_cache.save
    monkeypatch.setattr(count_cache, "save", save)
    await store(database, 5)
    await run_sql(database, "alter table known_counts add column newer bigint not null")
    try:
        async with worker(database) as counts:
            assert [await found(counts, database) for _ in range(3)] == [5, 5, 5]
            await asyncio.wait_for(refused.wait(), 60)
            assert await found(counts, database) == 5
            await run_sql(database, "alter table known_counts drop column newer")
            assert await found(counts, database, {}) == 5
            await until_kept(database, 1)
    finally:
        await run_sql(database, "alter table known_counts drop column if exists newer")


@pytest.mark.slow
async def test_a_crash_of_the_server_begins_a_new_run(short_tmp: Path) -> None:
    """After a crash, PostgreSQL may reuse ids that transactions drew without flushing."""
    with running(short_tmp / "crash") as url:
        connection = await asyncpg.connect(url)
        await connection.execute("create table factory_logs (); create table retention_runs (removed int)")
        before = await current_state(connection)
        assert await current_state(connection) == before
        witness = await asyncpg.connect(url)
        os.kill(connection.get_server_pid(), signal.SIGKILL)
        connection.terminate()
        await until_closed(witness)  # before that, the server accepts connections and then ends them with the rest
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
                return await asyncpg.connect(url, timeout=60)
            await asyncio.sleep(0.05)

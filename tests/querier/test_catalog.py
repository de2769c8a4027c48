"""The catalog is updated in the background: in parts, by one worker at a time, on a connection for reads."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import replace

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from factory_logs.db.catalog import work_alone
from factory_logs.db.engine import Database, Pool
from factory_logs.errors import BadRequestError, OverloadedError
from factory_logs.metrics import CATALOG_MISSING, CATALOG_SECONDS
from factory_logs.querier.aggregates import Aggregates
from factory_logs.querier.catalog import APPS, PATHS, CatalogUpdates, read_catalog
from factory_logs.querier.result_cache import ResultCache
from factory_logs.querier.sums import Sums
from factory_logs.settings import Settings
from tests.querier.jig_sums import worker_with
from tests.querier.writers import run_sql, until_kept

MAX_PATHS = 100
SMALL_PARTS = (replace(APPS, part=10), replace(PATHS, part=5))
BEHIND_ITS_BACK = "DELETE FROM factory_logs WHERE fields ? 'only here'"
"""Nothing in the service does this. Who still sees the path has not read the logs again."""


async def store(database: Database, logs: int) -> None:
    """Store logs, of which the newest has a path of its own."""
    await run_sql(
        database,
        f"""
        INSERT INTO factory_logs (app_name, timestamp, fields, created_by)
        SELECT 'tiger', '2024-01-01', jsonb_build_object(CASE n WHEN {logs} THEN 'only here' ELSE 'n' END, n), 'test'
        FROM generate_series(1, {logs}) AS n
        """,
    )


def worker(database: Database, **settings: object) -> AbstractAsyncContextManager[Sums]:
    """Run a worker that stores complete parts in the database, and nothing that merely took long."""
    return worker_with(database, {"count_look_seconds": 0.001, "kept_count_seconds": 60.0, **settings})


def updates(sums: Sums, every_seconds: float = 0.01, max_paths: int = MAX_PATHS) -> CatalogUpdates:
    return CatalogUpdates(sums, every_seconds, max_paths, SMALL_PARTS)


async def paths(sums: Sums) -> list[str]:
    apps = (await read_catalog(sums, MAX_PATHS)).body["apps"]
    return [path["path"] for app in apps for path in app["fields"]]


def missing() -> float:
    return float(next(sample.value for metric in CATALOG_MISSING.collect() for sample in metric.samples))


async def test_each_part_brings_the_catalog_nearer_to_the_watermark(database: Database) -> None:
    await store(database, 16)
    async with worker(database) as sums:
        catalog = updates(sums)
        for apps_and_paths_left in (6, 11, 6, 1):
            assert not await catalog.add_part()
            assert missing() == apps_and_paths_left
        assert await catalog.add_part()
        assert missing() == 0


async def test_a_request_finds_the_catalog_ready(database: Database) -> None:
    await store(database, 16)
    async with worker(database) as sums:
        before = CATALOG_SECONDS._value.get()
        await updates(sums).add_new_logs()
        assert CATALOG_SECONDS._value.get() > before
        await run_sql(database, BEHIND_ITS_BACK)
        assert await paths(sums) == ["fields__n", "fields__only here"]


async def test_a_catalog_that_is_too_large_to_be_known_is_not_read_again_and_again(database: Database) -> None:
    await store(database, 16)
    async with worker(database, max_known_rows=1) as sums:
        await run_sql(database, "UPDATE factory_logs SET fields = jsonb_build_object('a', 1, 'b', 2)")
        with capture_logs() as lines:
            await asyncio.wait_for(updates(sums).add_new_logs(), 20)
        assert [line["event"] for line in lines] == [
            "the catalog cannot be stored: it has more rows than FACTORY_LOGS_MAX_KNOWN_ROWS"
        ]


async def test_run_adds_new_logs_again_and_again(database: Database) -> None:
    async with worker(database) as sums:
        running = asyncio.create_task(updates(sums).run())
        try:
            for logs in (3, 4):
                await store(database, logs)
                await _until_known(sums, database)
                await run_sql(database, BEHIND_ITS_BACK)
                assert await paths(sums) == ["fields__n", "fields__only here"]
        finally:
            running.cancel()


async def _until_known(sums: Sums, database: Database) -> None:
    """Wait until the worker's catalog has all logs."""
    async with database.connect() as connection:
        newest = await connection.scalar(text("SELECT max(factory_log_id) FROM factory_logs"))
    for _ in range(1000):
        known = [fact.up_to for fact in sums._known.facts().values()]
        if len(known) == len(SMALL_PARTS) and min(known) >= newest:
            return
        await asyncio.sleep(0.01)
    pytest.fail("the catalog was never complete")


async def test_other_workers_find_the_parts_that_one_has_completed(database: Database) -> None:
    await store(database, 20)
    async with worker(database) as sums, worker(database) as behind:
        await updates(behind).add_part()
        await updates(sums).add_new_logs()
        await until_kept(database, 2, up_to=20)
        await run_sql(database, BEHIND_ITS_BACK)
        assert await updates(behind).add_part(), "nothing is left to do"
        assert await paths(behind) == ["fields__n", "fields__only here"]
    async with worker(database) as restarted:
        assert await updates(restarted).add_part()


async def test_a_part_is_stored_however_small_the_steps_to_it_were(database: Database) -> None:
    async with worker(database) as sums:
        for logs in (3, 3, 3, 3):
            await store(database, logs)
            assert await updates(sums).add_part()
        await until_kept(database, 2)


async def test_one_worker_at_a_time_works(database: Database) -> None:
    await store(database, 16)
    async with worker(database) as sums:
        async with database.begin() as other:
            assert await work_alone(other)
            assert await updates(sums).add_part()
            assert not sums._known.facts()
        assert not await updates(sums).add_part()
        assert sums._known.facts()


async def test_it_waits_for_no_transaction_and_reads_nothing_above_the_watermark(database: Database) -> None:
    await store(database, 4)
    async with worker(database) as sums:
        await updates(sums).add_new_logs()
        async with database.begin() as slow:
            await slow.execute(text("SELECT nextval('factory_logs_factory_log_id_seq')"))
            await store(database, 4)
            await updates(sums).add_new_logs()
            assert {fact.up_to for fact in sums._known.facts().values()} == {4}
        await updates(sums).add_new_logs()
        assert {fact.up_to for fact in sums._known.facts().values()} == {9}


async def test_it_uses_one_connection_for_reads_and_one_processor(migrated_url: str, database: Database) -> None:
    await store(database, 16)
    own = Database(migrated_url, Settings())
    try:
        sums = Sums(ResultCache(own, Settings()), Aggregates(own, Settings()), Settings())
        await updates(sums).add_new_logs()
        opened = {pool: engine.pool.checkedin() for pool, engine in own.engines.items()}  # type: ignore[attr-defined]
        assert opened == {Pool.READING: 1, Pool.WRITING: 0, Pool.AUTHENTICATION: 0}
        async with own.snapshot() as connection:
            before = await connection.scalar(text("SHOW max_parallel_workers_per_gather"))
            assert await work_alone(connection)
            assert await connection.scalar(text("SHOW max_parallel_workers_per_gather")) == "0"
        async with own.snapshot() as connection:
            assert await connection.scalar(text("SHOW max_parallel_workers_per_gather")) == before
    finally:
        await own.dispose()


async def test_it_counts_as_an_aggregate(database: Database) -> None:
    """Requests and the background work together never use more connections than a setting allows."""
    async with worker(database, max_aggregates=1, pool_timeout_seconds=0.01) as sums, sums.snapshot():
        with pytest.raises(OverloadedError):
            await updates(sums).add_part()


async def test_an_error_is_logged_and_the_next_round_tries_again(database: Database) -> None:
    await store(database, 16)
    async with worker(database) as sums:
        too_many = updates(sums, max_paths=1)
        with pytest.raises(BadRequestError, match="More than 1 paths in the catalog"):
            await too_many.add_new_logs()
        with capture_logs() as lines:
            running = asyncio.create_task(too_many.run())
            for _ in range(1000):
                if len(lines) > 1:
                    break
                await asyncio.sleep(0.01)
            running.cancel()
    assert {line["event"] for line in lines} == {"the catalog cannot be updated"}
    assert len(lines) > 1
    assert "More than 1 paths" in lines[0]["reason"]

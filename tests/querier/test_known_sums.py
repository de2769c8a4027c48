"""Sums that took long are stored in the database, for other workers and for the time after a restart."""

import asyncio

import pytest
from sqlalchemy import text

from factory_logs.db.engine import Database
from tests.querier.jig_sums import (
    BEHIND_ITS_BACK,
    KINDS,
    both,
    differs,
    q,
    store,
    worker,
)
from tests.querier.writers import run_sql, until_kept


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

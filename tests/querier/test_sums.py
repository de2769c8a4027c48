"""Cached sums equal plain SQL in the same snapshot while other clients write."""

import asyncio
import random
from datetime import timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db import removals
from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow
from factory_logs.db.retention import START, remove_batch
from factory_logs.querier import sums as sums_module
from factory_logs.querier.sum_definitions import Summed
from factory_logs.querier.sum_rows import TooManyRowsError
from factory_logs.querier.sum_tables import Table
from factory_logs.querier.sums import Sums, SumsOfSnapshot
from factory_logs.settings import Settings
from tests.conftest import CITUS_URL, as_role
from tests.querier.jig_sums import (
    BEHIND_ITS_BACK,
    DAY,
    KINDS,
    MOST,
    PART,
    TIGER,
    WITHOUT_SNAPSHOT,
    JigWriters,
    both,
    both_in,
    differs,
    new_log,
    plain_table,
    q,
    store,
    worker,
)
from tests.querier.writers import insert, run_sql, until_all_have_ended, until_kept


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


async def test_too_many_rows_are_refused_and_not_read_again(database: Database) -> None:
    await store(database, 1, 16)
    summed = KINDS["stats"](q())
    async with worker(database) as sums:
        for _ in range(2):
            async with sums.snapshot() as snapshot:
                with pytest.raises(TooManyRowsError):
                    await snapshot.table(summed, 2)
            await run_sql(database, "delete from factory_logs where factory_log_id > 1")


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

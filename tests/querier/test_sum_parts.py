"""Sums that are read in parts: after retention, only the parts that lost logs are read again."""

from dataclasses import replace
from datetime import timedelta

import pytest

from factory_logs.db import removals
from factory_logs.db.engine import Database
from factory_logs.db.retention import START, remove_batch
from factory_logs.querier import sum_parts
from factory_logs.querier.catalog import APPS, PATHS, TABLES, TAG_SETS
from factory_logs.querier.known_sums import sums_name
from factory_logs.querier.sum_parts import KnownParts
from factory_logs.querier.sum_rows import TooManyRowsError
from factory_logs.querier.sums import StillReadingError
from tests.querier.jig_sums import BEHIND_ITS_BACK, DAY, MOST, both, differs, store, worker
from tests.querier.writers import run_sql, until_kept

SMALL_BLOCK = 5


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

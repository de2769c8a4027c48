"""Known sums are corrected by the logs that they do not cover, and no other logs are read."""

import pytest

from factory_logs.db.engine import Database
from tests.querier.jig_sums import BEHIND_ITS_BACK, KINDS, differs, q, store, worker
from tests.querier.writers import run_sql


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

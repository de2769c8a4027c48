"""Counts that were cached while logs were written and removed are exact when no log is written."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from factory_logs.db.citus import wait_for_prepared_writers
from factory_logs.db.engine import Database
from factory_logs.querier.counts import LogCounts
from factory_logs.querier.pages import Pages
from factory_logs.querier.result_cache import ResultCache
from factory_logs.query import FACTORY_LOGS, QueryLimits, compile_count, parse_query
from factory_logs.settings import Settings
from tests.querier.writers import QUERIES, Writers, run_sql

EAGER = {"count_look_seconds": 0.001, "kept_count_seconds": 0.0, "max_known_counts": 6, "max_kept_counts": 8}
PARSED = [parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits()) for q in QUERIES]


@asynccontextmanager
async def pages_of_a_worker(database: Database) -> AsyncIterator[Pages]:
    settings = Settings().model_copy(update=EAGER)
    known = ResultCache(database, settings)
    pages = Pages(database, LogCounts(known, settings), settings)
    keeping = asyncio.create_task(known.run())
    try:
        yield pages
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        pages.close()


async def write_for_a_while(writers: Writers, workers: list[Pages], chosen: random.Random) -> None:
    """Let all kinds of writers run while the workers count."""
    kinds = [writers.singles, writers.batches, writers.batches, writers.repairs, writers.retention]
    running = [asyncio.create_task(writers.run(writer)) for writer in kinds]
    for _ in range(25):
        await chosen.choice(workers).read(chosen.choice(PARSED), FACTORY_LOGS, 0, 5)
    assert not any(task.done() for task in running)
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def truths(cluster: Database) -> list[int]:
    connection = await cluster.connect_raw()
    await wait_for_prepared_writers(connection)
    await connection.close()
    async with cluster.connect_reader() as reader:
        return [(await reader.execute(compile_count(query, FACTORY_LOGS))).scalar_one() for query in PARSED]


@pytest.mark.slow
async def test_cached_counts_are_exact_whenever_no_log_is_written(cluster: Database) -> None:
    await run_sql(cluster, "insert into repairs (product_imei, process) values ('1', 'Replaced')")
    writers, chosen = Writers(cluster, 1), random.Random(1)
    async with AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(pages_of_a_worker(cluster)) for _ in range(2)]
        for round_number in range(3):
            await write_for_a_while(writers, workers, chosen)
            expected = await truths(cluster)
            restarted = await stack.enter_async_context(pages_of_a_worker(cluster))
            for pages in (*workers, restarted):
                found = [(await pages.read(query, FACTORY_LOGS, 0, 5))[0] for query in PARSED]
                assert found == expected, round_number
            workers[0] = restarted

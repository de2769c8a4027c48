"""A result with too many groups is an error that reads only a sample of the logs."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.engine import Database
from factory_logs.errors import BadRequestError
from factory_logs.querier.aggregates import AggregateResult, Aggregates
from factory_logs.querier.result_cache import ResultCache
from factory_logs.querier.results import read_distribution, read_facets, read_failures, read_yield
from factory_logs.querier.stats import read_stats
from factory_logs.querier.sums import Sums
from factory_logs.query import (
    FACTORY_LOGS,
    QueryLimits,
    parse_distribution,
    parse_facets,
    parse_failures,
    parse_stats,
    parse_yield,
)
from factory_logs.settings import Settings
from tests.conftest import CITUS_URL
from tests.querier.writers import run_sql

LOGS = 10_000
MAX_ROWS = 20
EARLY = LOGS // 20
FILL = f"""
INSERT INTO factory_logs (app_name, product_imei, timestamp, tags, fields, created_by)
SELECT 'tiger', (352099000000000 + n / 4)::text, timestamp '2024-01-01' + n * interval '1 minute',
       jsonb_build_object('jig', n % 40), jsonb_build_object('passed', n % 2 = 0, 'volt', n, 'check ' || n % 90, false),
       'test'
FROM generate_series(1, {LOGS}) AS n
"""

Pairs = list[tuple[str, str]]
DAY_AND_JIG: Pairs = [("bucket", "1d"), ("by", "tags__jig")]


class CountingAggregates(Aggregates):
    """Counts the logs that the last aggregate has read."""

    rows_read = 0

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        async with super().snapshot() as connection:
            before = await _rows_read(connection)
            try:
                yield connection
            finally:
                self.rows_read = await _rows_read(connection) - before


async def _rows_read(connection: AsyncConnection) -> int:
    """Return the logs that the transaction has read by scans of the table and of its indexes."""
    found = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relname = 'factory_logs'"
    return int((await connection.execute(text(found))).scalar_one())


class Worker:
    """Reads aggregates like a worker that has no known results."""

    def __init__(self, database: Database) -> None:
        settings = Settings()
        self.aggregates = CountingAggregates(database, settings)
        self.sums = Sums(ResultCache(database, settings), self.aggregates, settings)

    def stats(self, pairs: Pairs) -> Awaitable[AggregateResult]:
        return read_stats(self.sums, self.aggregates, parse_stats(pairs, FACTORY_LOGS, QueryLimits(), 10), MAX_ROWS)

    def measured(self, pairs: Pairs) -> Awaitable[AggregateResult]:
        return self.stats([*pairs, ("field", "fields__volt")])

    def yields(self, pairs: Pairs) -> Awaitable[AggregateResult]:
        return read_yield(self.sums, parse_yield(pairs, FACTORY_LOGS, QueryLimits(), 10), MAX_ROWS)

    def failures(self, pairs: Pairs) -> Awaitable[AggregateResult]:
        return read_failures(self.sums, parse_failures(pairs, FACTORY_LOGS, QueryLimits(), MAX_ROWS), MAX_ROWS)

    def distribution(self, pairs: Pairs) -> Awaitable[AggregateResult]:
        asked = [*pairs, ("field", "fields__volt")]
        question = parse_distribution(asked, FACTORY_LOGS, QueryLimits(), 10)
        return read_distribution(self.aggregates, question, MAX_ROWS)


ROWS_ARE_COUNTED_HERE = pytest.mark.skipif(CITUS_URL is not None, reason="each node counts the rows that it reads")
Call = Callable[[Worker, Pairs], Awaitable[AggregateResult]]


@pytest.fixture
async def filled(database: Database) -> Worker:
    await run_sql(database, FILL, "ANALYZE factory_logs")
    return Worker(database)


def q(**equal: Any) -> tuple[str, str]:
    """Return `q` with filters for these values, and for times from `since` on."""
    since = equal.pop("since", None)
    filters = [{"name": name, "op": "==", "val": value} for name, value in equal.items()]
    if since is not None:
        filters.append({"name": "timestamp", "op": ">=", "val": since})
    return "q", json.dumps({"filters": filters})


@ROWS_ARE_COUNTED_HERE
@pytest.mark.parametrize(
    ("call", "pairs"),
    [
        (Worker.stats, DAY_AND_JIG),
        (Worker.measured, DAY_AND_JIG),
        (Worker.yields, DAY_AND_JIG),
        (Worker.failures, []),
        (Worker.distribution, [("by", "tags__jig")]),
        (Worker.stats, [*DAY_AND_JIG, q(since="2024-01-04")]),
        (Worker.measured, [*DAY_AND_JIG, q(app_name="tiger")]),
        (Worker.yields, [*DAY_AND_JIG, q(fields__passed=True)]),
    ],
)
async def test_too_many_groups_are_an_error_after_a_sample_of_the_logs(
    filled: Worker, call: Call, pairs: Pairs
) -> None:
    with pytest.raises(BadRequestError, match=f"More than {MAX_ROWS} buckets and groups"):
        await call(filled, pairs)
    assert 0 < filled.aggregates.rows_read < EARLY


@ROWS_ARE_COUNTED_HERE
@pytest.mark.parametrize("call", [Worker.stats, Worker.measured, Worker.yields])
async def test_after_the_sample_all_logs_are_read(filled: Worker, call: Call) -> None:
    rows = (await call(filled, [("bucket", "1d")])).rows
    assert len(rows) == 7
    assert sum(row.get("count", row.get("attempts")) for row in rows) == LOGS
    assert filled.aggregates.rows_read > LOGS


@ROWS_ARE_COUNTED_HERE
async def test_a_group_that_the_sample_misses_still_counts(filled: Worker, database: Database) -> None:
    """The limit holds for all logs: a sample only shows early that it is exceeded."""
    await run_sql(database, "UPDATE factory_logs SET tags = '{\"jig\": 0}' WHERE factory_log_id > 30")
    with pytest.raises(BadRequestError, match="buckets and groups"):
        await filled.stats([("by", "tags__jig")])
    assert filled.aggregates.rows_read > LOGS


@ROWS_ARE_COUNTED_HERE
@pytest.mark.parametrize("call", [Worker.stats, Worker.measured, Worker.yields])
async def test_few_logs_that_an_index_finds_are_read_without_a_sample(filled: Worker, call: Call) -> None:
    assert (await call(filled, [*DAY_AND_JIG, q(product_imei="352099000001000")])).rows
    assert filled.aggregates.rows_read <= 2 * 4 + 2


@ROWS_ARE_COUNTED_HERE
async def test_a_facet_of_many_values_is_read_once_not_twice(filled: Worker) -> None:
    question = parse_facets([("field", "fields__volt"), ("limit", "2")], FACTORY_LOGS, QueryLimits(), 10, 10)
    facet = (await read_facets(filled.sums, question, MAX_ROWS)).body["facets"]["fields__volt"]
    assert (len(facet["values"]), facet["other"]) == (2, LOGS - 2)
    assert LOGS <= filled.aggregates.rows_read < LOGS + EARLY

"""On a cluster, the cost of reading all logs decides whether a sample of them is read first."""

from datetime import datetime

from sqlalchemy import ColumnElement, literal

from factory_logs.db.aggregates import LOGS, sampled
from factory_logs.db.engine import Database
from tests.querier.writers import run_sql

FILL = """
INSERT INTO factory_logs (factory_log_id, shard_key, app_name, product_imei, timestamp)
SELECT n, n >> 10, 'cit', (352099000000000 + n)::text, timestamp '2024-01-01' + n * interval '1 second'
FROM generate_series(1, 20000) AS n
"""
SAMPLE = 100


async def test_a_sample_is_read_unless_an_index_finds_few_logs(cluster: Database) -> None:
    await run_sql(cluster, FILL, "ANALYZE factory_logs")
    one_unit: ColumnElement[bool] = LOGS.c.product_imei == literal("352099000000700")
    async with cluster.snapshot() as connection:
        assert await sampled(connection, [], None, None, SAMPLE) is not None
        assert await sampled(connection, [], datetime(2024, 1, 1, 0, 1), None, SAMPLE) is not None
        assert await sampled(connection, [one_unit], None, None, SAMPLE) is None

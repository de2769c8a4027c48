"""Logs made by PostgreSQL itself, the same ones each time: what the read benchmarks and the plan tests ask for.

They come in the order of time, one each 20 seconds, from twelve apps that are unequally busy. A unit has some 40 logs,
most of them close together, as it goes along the line; every twentieth log belongs to a repair. What is said of one
size holds for another: the same questions find the same share.
"""

import contextlib
from collections.abc import AsyncIterator

import asyncpg

FIRST_DAY = "2023-01-01"
LOGS_PER_UNIT = 40
LOGS_PER_REPAIR = 25
JIGS = 60

_REPAIRS = """
INSERT INTO repairs (product_imei, arrival_date, process, created_by)
SELECT lpad((352099000000000 + n)::text, 15, '0'), timestamp '2023-01-01' + n * interval '9 minutes',
       (ARRAY['Repair and Return', 'Replaced', 'Repossessed', 'Broken on Arrival'])[1 + n % 4], 'seed'
FROM generate_series(1, $1::bigint) AS n
"""
# mixed() spreads numbers evenly and always the same way.
_LOGS = """
INSERT INTO factory_logs (app_name, product_imei, repair_id, timestamp, tags, fields, created_by)
SELECT
    (ARRAY['tiger_test_jig_production', 'koala_registration', 'battery_test', 'final_inspection', 'firmware_flash',
           'burn_in', 'packing', 'repair_intake', 'repair_test', 'audit', 'calibration', 'rework'])
        [1 + floor(12 * (mixed / 1000.0) ^ 2)::int],
    CASE WHEN mixed % 50 > 0 THEN
        (352099000000000 + n / (20 * 40) * 20 + mixed % 20)::text END,
    CASE WHEN mixed % 20 = 7 THEN 1 + (n * 7919) % $3::bigint END,
    timestamp '2023-01-01' + n * interval '20 seconds' + mixed * interval '1.2 seconds',
    jsonb_build_object('jig_id', 'J-' || lpad((mixed % 60 + 1)::text, 2, '0'), 'hostname', 'CN-REG' || mixed % 9,
                       'user', 'operator-' || mixed % 40, 'serial_number', 'TG' || lpad((n / 4)::text, 9, '0'),
                       'software_version', '2.4.' || n / 1000000),
    jsonb_build_object('passed', mixed % 50 <> 3,
                       'battery', jsonb_build_object('voltage', round(3 + mixed % 400 / 1000.0, 3)),
                       'input_pv', jsonb_build_object('value', 12 + mixed % 7 + 0.25, 'pass', true),
                       'output_usb', jsonb_build_object('value', 5.03, 'pass', true),
                       'output_12v', jsonb_build_object('value', 12.11, 'pass', true)),
    'seed'
FROM generate_series($1::bigint, $2::bigint) AS n,
     LATERAL (SELECT ((n * 2654435761) % 4294967296) / 65536 % 1000 AS mixed) AS m
"""
STEP = 500_000


async def seed(connection: asyncpg.Connection, logs: int, *, stored: int = 0) -> None:
    """Fill up from `stored` to `logs` logs; the table must hold nothing else. Leaves it vacuumed and analyzed."""
    repairs = max(1, logs // (20 * LOGS_PER_REPAIR))
    have = await connection.fetchval("SELECT count(*) FROM repairs")
    if have < repairs:
        await connection.execute(_REPAIRS.replace("(1,", f"({have + 1},"), repairs)
    for first in range(stored + 1, logs + 1, STEP):
        await connection.execute(_LOGS, first, min(first + STEP - 1, logs), repairs, timeout=None)
    await connection.execute("VACUUM (ANALYZE) factory_logs", timeout=None)
    await connection.execute("ANALYZE repairs")


@contextlib.asynccontextmanager
async def filling(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to fill the table with; its indexes come afterwards. Leaves it vacuumed and written out."""
    connection = await asyncpg.connect(database_url, server_settings={"maintenance_work_mem": "512MB"})
    try:
        indexes = await connection.fetch(
            "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'factory_logs' AND indexname LIKE 'ix_%'"
        )
        for index in indexes:
            await connection.execute(f"DROP INDEX {index['indexname']}")
        yield connection
        for index in indexes:
            await connection.execute(index["indexdef"], timeout=None)
        await connection.execute("VACUUM (ANALYZE) factory_logs", timeout=None)
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()

"""Batches as the table grows: `uv run python -m benchmarks.growth --only writes [--sizes 10000 10000000 50000000]`.

Each batch has 1,000 logs. If all are about units that are now on the line, they change the same few pages of the index
by unit. If every second log is about a random older unit, each of these changes a page anywhere in that index. The
figure is how many logs are stored in a second, compared with the smallest table. The bytes of write-ahead log that a
log causes show why the rates differ, also if other programs use the machine: the first change of a page after a
checkpoint writes the whole page. A table below a million logs is filled again before each turn, so that it does not
grow much.
"""

import asyncio
import json
import statistics
from collections.abc import Callable

import asyncpg

from benchmarks.harness import Service, interleaved, ratio, wrk
from benchmarks.seeding import LOGS_PER_UNIT, seed
from benchmarks.writes import BATCH_ROWS, comparison, line, log

CONNECTIONS = 8
FLOOR, AIM = 0.8, 0.95
FILLED_AGAIN = 1_000_000
FIRST_IMEI = 352_099_000_000_000
LOCAL_UNITS = 20
WHERE = ("local units", "half of them random units")


def batches_script(token: str, logs: int, where: str) -> str:
    """Return a wrk script; each of its requests is a new batch about units of a table of this size."""
    units = logs // LOGS_PER_UNIT
    unit = f"units + number % {LOCAL_UNITS}"
    if where != WHERE[0]:
        unit = f"(index % 2 == 0) and math.random(0, units - 1) or ({unit})"
    before, after = json.dumps(log(1) | {"product_imei": "UNIT"}).split("UNIT")
    return f"""
local before, after, units, number = {json.dumps(before)}, {json.dumps(after)}, {units}, 0
local headers = {{ ["Content-Type"] = "application/x-ndjson", ["Authorization"] = "Token token={token}" }}
math.randomseed(os.time())
function request()
  local parts = {{}}
  for index = 1, {BATCH_ROWS} do
    number = number + 1
    parts[index] = before .. string.format("%.0f", {FIRST_IMEI} + ({unit})) .. after
  end
  return wrk.format("POST", nil, headers, table.concat(parts, "\\n"))
end
"""


def writes(
    services: dict[int, Service], rounds: int, seconds: int
) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Return logs per second and bytes of write-ahead log for each log, and the lines of the table."""
    written: dict[str, list[float]] = {}

    def load(size: int, where: str) -> Callable[[], float]:
        def once() -> float:
            running = services[size]
            if size < FILLED_AGAIN:
                asyncio.run(fill_again(running.database_url, size))
            script = batches_script(running.token, size, where)
            before = asyncio.run(wal_bytes(running.database_url))
            measured = wrk(f"{running.url}/v1/factory_logs", script, connections=CONNECTIONS, seconds=seconds)
            wal = asyncio.run(wal_bytes(running.database_url)) - before
            written.setdefault(f"{where}, {size:,} logs", []).append(round(wal / measured.requests / BATCH_ROWS))
            return measured.per_second * BATCH_ROWS

        return once

    rates = interleaved(
        {f"{where}, {size:,} logs": load(size, where) for size in services for where in WHERE}, 1 + rounds
    )
    counted = {name: by_round[1:] for name, by_round in rates.items()}  # the first round warms up
    smallest, *others = services
    figures: dict[str, object] = {"logs per second, the first round not counted": rates, "WAL bytes a log": written}
    lines = [
        line(
            f"batches, {where}, {size:,} logs",
            f"{smallest:,} logs",
            ratio(counted, f"{where}, {size:,} logs", f"{where}, {smallest:,} logs"),
            FLOOR,
            AIM,
        )
        for size in others
        for where in WHERE
    ]
    wal = [
        comparison(f"WAL bytes of a log, {name}", "", statistics.median(by_round)) for name, by_round in written.items()
    ]
    return figures, lines + wal


async def wal_bytes(database_url: str) -> int:
    """Return the bytes of write-ahead log that the server has written so far."""
    connection = await asyncpg.connect(database_url)
    try:
        return int(await connection.fetchval("SELECT pg_current_wal_lsn() - '0/0'"))
    finally:
        await connection.close()


async def fill_again(database_url: str, logs: int) -> None:
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("TRUNCATE factory_logs")
        await seed(connection, logs)
    finally:
        await connection.close()

"""The CPU time of a log of a batch, by part: `uv run python -m benchmarks.batch_cpu [--rounds 5] [--points 50000]`.

CPU time depends less on other programs than rates do, and shows what limits a rate: a machine with two cores has two
seconds of it each second. The parts take turns, so compare figures of one run only. The points are those of
benchmarks/influx.py, in batches of 5,000 as line protocol: decoding, copying to a table with all indexes or with only
its primary key, and InfluxDB for the same batches (Debian: influxdb). NDJSON of benchmarks/writes.py, in batches of
1,000, is compared with COPY of the same rows as CSV, as psql sends it. HTTP is included for InfluxDB only.
"""

import argparse
import asyncio
import contextlib
import csv
import gc
import http.client
import io
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import orjson

from benchmarks.harness import cpu_seconds, embedded, report
from benchmarks.indexes import backend_seconds
from benchmarks.influx import point
from benchmarks.influxd import influxd
from benchmarks.space import BATCH_LOGS, BATCH_POINTS, LIMITS, batched, new_database
from benchmarks.writes import log
from factory_logs.app import GC_THRESHOLDS
from factory_logs.db.log_inserts import copy_logs, copy_logs_without_ids
from factory_logs.influxdb.line_reader import LineProtocolReader
from factory_logs.ingest.batch_collector import BatchLimits
from factory_logs.ingest.batch_decoder import BatchReader, NdjsonReader
from factory_logs.ingest.new_logs import NewLogs

_INDEXES = "SELECT indexname FROM pg_indexes WHERE tablename = 'factory_logs' AND indexname LIKE 'ix_%'"
CSV_COLUMNS = ("app_name", "product_imei", "timestamp", "tags", "fields", "created_by")


@dataclass(frozen=True, slots=True)
class Batches:
    """The batches of one round: as bodies, decoded, and with the CPU time of decoding them."""

    bodies: list[bytes]
    logs: list[NewLogs]
    decoding: float


def points(first: int, count: int) -> Batches:
    numbers = range(first, first + count)
    bodies = ["\n".join(map(point, part)).encode() for part in batched(numbers, BATCH_POINTS)]
    return decoded(bodies, lambda: LineProtocolReader(LIMITS, BatchLimits(), unit_ns=1, now_ns=0))


def records(first: int, count: int) -> Batches:
    numbers = range(first, first + count)
    bodies = [b"\n".join(orjson.dumps(log(number)) for number in part) for part in batched(numbers, BATCH_LOGS)]
    return decoded(bodies, lambda: NdjsonReader(BatchReader(LIMITS, BatchLimits())))


def decoded(bodies: list[bytes], reader: Callable[[], Any]) -> Batches:
    started = time.process_time()
    logs = []
    for body in bodies:
        reading = reader()
        for start in range(0, len(body), reading.piece_bytes):
            reading.feed(body[start : start + reading.piece_bytes])
        reading.finish()
        logs.append(reading.take().logs)
    return Batches(bodies, logs, time.process_time() - started)


async def copied(
    connection: asyncpg.Connection, batches: Batches, copy: Callable[..., Awaitable[object]] = copy_logs
) -> tuple[float, float]:
    """Store the batches; return the CPU time of Python and that of PostgreSQL."""
    own, backend = time.process_time(), backend_seconds(connection)
    for logs in batches.logs:
        async with connection.transaction():
            await copy(connection, logs, "admin")
    own = time.process_time() - own
    await asyncio.sleep(0.05)  # the scheduler updates its count when the backend stops running
    return own, backend_seconds(connection) - backend


async def copied_csv(connection: asyncpg.Connection, rows: bytes) -> float:
    """Store rows as psql's `\\copy` does; return the CPU time of PostgreSQL."""
    before = backend_seconds(connection)
    await connection.copy_to_table("factory_logs", source=io.BytesIO(rows), format="csv", columns=CSV_COLUMNS)
    await asyncio.sleep(0.05)
    return backend_seconds(connection) - before


class Influxdb:
    """An InfluxDB and the CPU time of its process."""

    def __init__(self, url: str, folder: Path) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
        self._pid = int((folder / "pid").read_text())

    def written(self, bodies: list[bytes]) -> float:
        before = cpu_seconds(self._pid)
        for body in bodies:
            self._connection.request("POST", "/write?db=jigs", body)
            response = self._connection.getresponse()
            response.read()
            if response.status != 204:
                raise RuntimeError(f"InfluxDB refused a batch: {response.status}")
        return cpu_seconds(self._pid) - before


def csv_rows(batches: Batches) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    for logs in batches.logs:
        writer.writerows((*(getattr(log, name) for name in CSV_COLUMNS[:-1]), "admin") for log in logs)
    return text.getvalue().encode()


async def database(url: str, name: str, *, with_indexes: bool) -> asyncpg.Connection:
    connection = await asyncpg.connect(await new_database(url, name))
    if not with_indexes:
        for row in await connection.fetch(_INDEXES):
            await connection.execute(f"DROP INDEX {row[0]}")
    return connection


async def measure(url: str, influx: Influxdb | None, rounds: int, count: int) -> dict[str, list[float]]:
    """Return the microseconds of a log in each part, by round."""
    full = await database(url, "all_indexes", with_indexes=True)
    alone = await database(url, "key_alone", with_indexes=False)
    json_logs = await database(url, "json_logs", with_indexes=True)
    figures: dict[str, list[float]] = {}

    def note(name: str, seconds: float) -> None:
        figures.setdefault(name, []).append(round(seconds / count * 1e6, 2))

    for number in range(1 + rounds):
        batches, more = points(number * count, count), records(number * count, count)
        note("line protocol: decode", batches.decoding)
        own, backend = await copied(full, batches, copy_logs_without_ids)
        note("line protocol: COPY, in Python", own)
        note("line protocol: PostgreSQL, all indexes", backend)
        note("line protocol: PostgreSQL, primary key alone", (await copied(alone, batches, copy_logs_without_ids))[1])
        if influx is not None:
            note("line protocol: all of InfluxDB 1.6", influx.written(batches.bodies))
        note("NDJSON: decode", more.decoding)
        own, backend = await copied(json_logs, more)
        note("NDJSON: ids, COPY, in Python", own)
        note("NDJSON: PostgreSQL, all indexes", backend)
        note("NDJSON: PostgreSQL, COPY of CSV instead", await copied_csv(json_logs, csv_rows(more)))
    for connection in (full, alone, json_logs):
        await connection.close()
    return {name: by_round[1:] for name, by_round in figures.items()}  # the first round warms up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--points", type=int, default=50_000, help="how many there are in a round")
    options = parser.parse_args()
    gc.freeze()  # as a worker does
    gc.set_threshold(*GC_THRESHOLDS)
    with contextlib.ExitStack() as opened:
        url = opened.enter_context(embedded())
        influx = None
        if shutil.which("influxd") is not None:
            influx = Influxdb(*opened.enter_context(influxd()))
        figures = asyncio.run(measure(url, influx, options.rounds, options.points))
    lines = [
        {"benchmark": name, "microseconds": round(statistics.median(by_round), 1)} for name, by_round in figures.items()
    ]
    report("batch-cpu", lines, {"points": options.points, "microseconds by round": figures})


if __name__ == "__main__":
    main()

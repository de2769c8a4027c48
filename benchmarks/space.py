"""The bytes of a log, by part: `uv run python -m benchmarks.space [--logs 300000]`.

The logs are those of examples/generate.py and the points of benchmarks/influx.py, each on a new database, stored as the
service stores batches, on four connections at a time. The table is vacuumed before it is measured. If influxd is
installed (Debian: influxdb), it gets the same points in the same batches. The figures are sizes, so other programs do
not change them.
"""

import argparse
import asyncio
import http.client
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TypeVar

import asyncpg

from benchmarks.harness import embedded, report
from benchmarks.influx import point
from benchmarks.influxd import compacted_bytes, influxd, written_bytes
from factory_logs.db.log_inserts import copy_logs
from factory_logs.db.migrations import upgrade
from factory_logs.influxdb.line_reader import LineProtocolReader
from factory_logs.ingest.batch_collector import BatchLimits
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import validate_log
from factory_logs.schemas.record_limits import RecordLimits

CONNECTIONS = 4
BATCH_LOGS = 1_000
BATCH_POINTS = 5_000
EXAMPLES = Path(__file__).parents[1] / "examples" / "generate.py"
LIMITS = RecordLimits(max_record_bytes=2**18, max_nesting=32)
_PARTS = """
SELECT 'rows of the table' AS name, pg_relation_size('factory_logs') AS bytes, 0 AS ordinal
UNION ALL SELECT 'its free space map and visibility map',
    pg_table_size('factory_logs') - pg_relation_size('factory_logs') - pg_total_relation_size(reltoastrelid), 1
FROM pg_class WHERE oid = 'factory_logs'::regclass
UNION ALL SELECT 'TOAST', pg_total_relation_size(reltoastrelid), 2 FROM pg_class WHERE oid = 'factory_logs'::regclass
UNION ALL SELECT split_part(pg_get_indexdef(indexrelid), ' USING ', 2), pg_relation_size(indexrelid), 3
FROM pg_index WHERE indrelid = 'factory_logs'::regclass
ORDER BY ordinal, bytes DESC
"""
Item = TypeVar("Item")


def batched(items: Iterable[Item], count: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `count`; the last list may be shorter."""
    waiting = iter(items)
    while batch := list(islice(waiting, count)):
        yield batch


def example_batches(logs: int) -> Iterator[NewLogs]:
    """Yield the example data, without repairs, which the new database does not have."""
    with tempfile.TemporaryDirectory(prefix="flbench-space-") as folder:
        command = [sys.executable, str(EXAMPLES), "--logs", str(logs), "--out", folder]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        with (Path(folder) / "factory_logs.ndjson").open() as lines:
            for batch in batched(lines, BATCH_LOGS):
                yield NewLogs.of([validate_log(json.loads(line) | {"repair_id": None}, LIMITS) for line in batch])


def point_bodies(points: int) -> Iterator[bytes]:
    for numbers in batched(range(points), BATCH_POINTS):
        yield "\n".join(map(point, numbers)).encode()


def point_batches(points: int) -> Iterator[NewLogs]:
    for body in point_bodies(points):
        reader = LineProtocolReader(LIMITS, BatchLimits(), unit_ns=1, now_ns=0)
        reader.feed(body)
        reader.finish()
        yield reader.take().logs


async def new_database(url: str, name: str) -> str:
    """Create a database on the embedded server, with the service's tables, and return its URL."""
    administrator = await asyncpg.connect(url)
    await administrator.execute(f"CREATE DATABASE {name}")
    await administrator.close()
    own = url.replace("/factory_logs?", f"/{name}?", 1)
    await upgrade(own)
    return own


async def stored(url: str, database: str, batches: Iterable[NewLogs]) -> tuple[dict[str, float], dict[str, float]]:
    """Store the batches in a new database; return the bytes of a log in the table and in each of its indexes, and the
    same with the indexes built again."""
    own = await new_database(url, database)
    connections = [await asyncpg.connect(own) for _ in range(CONNECTIONS)]
    logs = 0
    for group in batched(batches, CONNECTIONS):
        logs += sum(map(len, group))
        copies = (copy_logs(connection, batch, "admin") for connection, batch in zip(connections, group, strict=False))
        await asyncio.gather(*copies)
    await connections[0].execute("VACUUM (ANALYZE) factory_logs")
    rows = await connections[0].fetch(_PARTS)
    await connections[0].execute("REINDEX TABLE factory_logs")
    rows_rebuilt = await connections[0].fetch(_PARTS)
    for connection in connections:
        await connection.close()
    return bytes_of_a_log(rows, logs), bytes_of_a_log(rows_rebuilt, logs)


def bytes_of_a_log(rows: Iterable[asyncpg.Record], logs: int) -> dict[str, float]:
    sizes = {row["name"]: round(row["bytes"] / logs, 1) for row in rows}
    return sizes | {"all": round(sum(sizes.values()), 1)}


def influxdb_bytes(points: int) -> dict[str, float]:
    """Return the bytes of a point in InfluxDB, when it has written it and after its own compaction."""
    with influxd() as (url, folder):
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=120)
        for body in point_bodies(points):
            connection.request("POST", "/write?db=jigs", body)
            response = connection.getresponse()
            if response.status != 204:
                raise RuntimeError(f"{response.read()!r}")
            response.read()
        sizes = {"InfluxDB, as written": written_bytes(folder), "InfluxDB, compacted": compacted_bytes(folder)}
    return {name: round(size / points, 1) for name, size in sizes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=300_000)
    logs = parser.parse_args().logs
    with embedded() as url:
        examples, examples_rebuilt = asyncio.run(stored(url, "examples", example_batches(logs)))
        points, points_rebuilt = asyncio.run(stored(url, "points", point_batches(logs)))
    if shutil.which("influxd") is not None:
        points |= influxdb_bytes(logs)
    sizes = {
        "example data": examples,
        "indexes built again": examples_rebuilt,
        "points": points,
        "indexes built again ": points_rebuilt,
    }
    names = dict.fromkeys(part for size in sizes.values() for part in size)
    lines = [{"benchmark": part, **{data: size.get(part, "") for data, size in sizes.items()}} for part in names]
    report("space", lines, {"logs": logs, "bytes of a log": sizes})


if __name__ == "__main__":
    main()

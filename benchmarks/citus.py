"""Processor time of writes on a Citus cluster: `FACTORY_LOGS_TEST_CITUS_URL=... uv run python -m benchmarks.citus
[--rounds 5]`.

The cluster's nodes must run on this machine, as their processor time is read from /proc; its logs must be distributed,
and its URL needs a superuser. It is compared with one embedded PostgreSQL. Times of the client and of the service are
not in it (docs/how-to/scale-out.md).
"""

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg

from benchmarks.harness import embedded
from benchmarks.writes import log
from factory_logs.db.citus import is_distributed
from factory_logs.db.citus_inserts import insert_logs_on_cluster
from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow, copy_logs, insert_logs
from factory_logs.db.migrations import upgrade
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import parse_log
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.settings import Settings

BATCH, BATCHES = 1000, 20
GROUP, GROUPS = 30, 200
PROJECTED_WORKERS = (1, 2, 3, 6, 12)
CORES = 8
_POSTMASTERS = """
SELECT CASE groupid WHEN 0 THEN 'coordinator' ELSE 'worker nodes' END, result::int
FROM run_command_on_all_nodes($$SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)$$)
     JOIN pg_dist_node USING (nodeid)
"""
_POSTMASTER = "SELECT 'PostgreSQL', split_part(pg_read_file('postmaster.pid'), E'\\n', 1)::int"

Seconds = dict[str, float]
"""Seconds of processor time by kind of node."""


def processor_seconds(postmaster: int) -> float:
    """Return the processor time of a server until now, with its processes that run and that have ended."""
    ticks = 0
    for process in Path("/proc").iterdir():
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split() if process.name.isdigit() else []
        except OSError:  # it has ended
            continue
        if fields and int(process.name) == postmaster:
            ticks += sum(map(int, fields[11:15]))
        elif fields and int(fields[1]) == postmaster:
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


class Server:
    """One PostgreSQL, or a cluster."""

    def __init__(self, connection: asyncpg.Connection, postmasters: list[tuple[str, int]]) -> None:
        self.connection = connection
        self._postmasters = postmasters

    @classmethod
    async def connect(cls, url: str) -> "Server":
        connection = await Database(url, Settings()).connect_raw()
        found = await connection.fetch(_POSTMASTERS if is_distributed(connection) else _POSTMASTER)
        return cls(connection, [tuple(row) for row in found])

    async def measured(self, write: Callable[[asyncpg.Connection], Awaitable[int]]) -> Seconds:
        """Return the processor time of a million rows."""
        before = self._seconds()
        rows = await write(self.connection)
        await asyncio.sleep(0.1)  # the last commits on the nodes
        return {kind: (seconds - before[kind]) / rows * 1e6 for kind, seconds in self._seconds().items()}

    def _seconds(self) -> Seconds:
        total: Seconds = {}
        for kind, postmaster in self._postmasters:
            total[kind] = total.get(kind, 0.0) + processor_seconds(postmaster)
        return total


LOGS = [parse_log(json.dumps(log(number)).encode(), RecordLimits(256 * 1024, 32)) for number in range(BATCH)]


async def batches(connection: asyncpg.Connection) -> int:
    for _ in range(BATCHES):
        async with connection.transaction():
            await copy_logs(connection, NewLogs.of(LOGS), "benchmark")
    return BATCH * BATCHES


async def groups(connection: asyncpg.Connection) -> int:
    insert = insert_logs_on_cluster if is_distributed(connection) else insert_logs
    for _ in range(GROUPS):
        await insert(connection, [NewRow(one, "benchmark") for one in LOGS[:GROUP]])
    return GROUP * GROUPS


async def compare(plain_url: str, cluster_url: str, rounds: int) -> dict[str, Seconds]:
    await upgrade(plain_url)
    servers = [await Server.connect(url) for url in (plain_url, cluster_url)]
    found: dict[str, Seconds] = {}
    for name, write in ((f"batches of {BATCH}", batches), (f"group commits of {GROUP}", groups)):
        samples: dict[str, list[float]] = {}
        for _ in range(rounds + 1):  # the first one warms up
            for server in servers:
                for kind, seconds in (await server.measured(write)).items():
                    samples.setdefault(kind, []).append(seconds)
        found[name] = {kind: statistics.median(seconds[1:]) for kind, seconds in samples.items()}
    for server in servers:
        await server.connection.close()
    return found


def show(name: str, seconds: Seconds) -> None:
    print(f"\n{name}: seconds of processor time for a million rows")
    for kind, number in seconds.items():
        print(f"  {kind:14} {number:7.1f}")
    coordinator, workers = seconds["coordinator"], seconds["worker nodes"]
    print(f"  one core of the coordinator feeds {workers / coordinator:.1f} cores of worker nodes")
    print(f"  projected rows/s, {CORES} cores a node:")
    for nodes in PROJECTED_WORKERS:
        rows = min(CORES / coordinator, nodes * CORES / workers) * 1e6
        limit = "coordinator" if CORES / coordinator < nodes * CORES / workers else "worker nodes"
        print(f"  {nodes:4} worker nodes {rows:10,.0f}, limited by the {limit}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    cluster_url = os.environ.get("FACTORY_LOGS_TEST_CITUS_URL")
    if cluster_url is None:
        raise SystemExit("FACTORY_LOGS_TEST_CITUS_URL must name the coordinator of a cluster on this machine")
    with embedded() as plain_url:
        found = asyncio.run(compare(plain_url, cluster_url, rounds))
    for name, seconds in found.items():
        show(name, seconds)


if __name__ == "__main__":
    main()

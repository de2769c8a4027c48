"""Benchmarks of reads, as the table of logs grows: `uv run python -m benchmarks.reads`.

Needs wrk, and 1.5 GB of disk in /tmp for each million logs. For each of `--sizes` there is a service with its own
database, filled once. The services, pgbench on the same databases and the peer take turns, so one run shows both the
ratio of each row and how it grows. With `--only`, the figures go to a separate file.
"""

import argparse
import asyncio
import contextlib
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from urllib.parse import quote

import httpx

from benchmarks.harness import BINARIES, Service, interleaved, peak_memory, peer, ratio, report, service, wrk
from benchmarks.production import Units, fill
from benchmarks.writes import line

CONNECTIONS = 64
PAGE_CONNECTIONS = 8
MOST_EXPORT_ROUNDS = 3

Figures = dict[str, list[float]]
Lines = list[dict[str, object]]


@dataclass(frozen=True, slots=True)
class Filled:
    """A service with `logs` logs."""

    logs: int
    running: Service

    @property
    def name(self) -> str:
        return f"{self.logs:,} logs"


def by_id(services: Sequence[Filled], rounds: int, seconds: int) -> tuple[Figures, Lines]:
    with memory(ask(services[0], "/v1/factory_logs/42")) as echo:
        contenders = {
            one.name: load(one, f"{one.running.url}/v1/factory_logs/", ids(one), CONNECTIONS, seconds)
            for one in services
        }
        last = services[-1]
        contenders["FastAPI from memory"] = load(last, f"{echo}/", ids(last), CONNECTIONS, seconds)
        figures = interleaved(contenders, rounds)
    peers = dict.fromkeys(services, "FastAPI from memory")
    return figures, lines(figures, "GET by id, 64 connections", "FastAPI route, same bytes from memory", peers)


def pages(services: Sequence[Filled], rounds: int, seconds: int) -> tuple[Figures, Lines]:
    body = ask(services[0], Units.of(services[0].logs).first_page)
    assert len(json.loads(body)["objects"]) == 100
    contenders: dict[str, Callable[[], float]] = {}
    with memory(body) as echo:
        for one in services:
            script = Units.of(one.logs).page_script
            contenders[one.name] = load(one, f"{one.running.url}/v1/factory_logs", script, PAGE_CONNECTIONS, seconds)
            contenders[f"SQL, {one.name}"] = pgbench(one, seconds)
        contenders["FastAPI from memory"] = load(services[0], f"{echo}/page", "", PAGE_CONNECTIONS, seconds)
        figures = interleaved(contenders, rounds)
    for one in services:
        both = zip(figures[f"SQL, {one.name}"], figures["FastAPI from memory"], strict=True)
        figures[f"SQL plus FastAPI, {one.name}"] = [1 / (1 / sql + 1 / echoed) for sql, echoed in both]
    peers = {one: f"SQL plus FastAPI, {one.name}" for one in services}
    return figures, lines(figures, "page of 100 by IMEI and time", "same SQL by pgbench + same bytes", peers)


def exports(services: Sequence[Filled], rounds: int, seconds: int) -> tuple[Figures, Lines]:
    """Measure exports by the worker of the largest table. `seconds` has no effect, as an export runs to its end."""
    largest, sizes = services[-1], [one.logs for one in services]
    export(largest, sizes[0])  # warms up the first export
    contenders = {f"{rows:,} rows": partial(export, largest, rows) for rows in sizes}
    figures = interleaved(contenders, min(rounds, MOST_EXPORT_ROUNDS))
    few, *others = contenders
    return figures, [
        {
            "logs": rows.removesuffix(" rows"),
            **line("NDJSON export, peak memory", f"export of {few}", ratio(figures, rows, few), 1.2, 1.05),
            "slower": "-",
        }
        for rows in others
    ]


def lines(figures: Figures, benchmark: str, against: str, peers: Mapping[Filled, str]) -> Lines:
    """Return a line for each size; `slower` is the ratio to the smallest size."""
    smallest = next(iter(peers)).name
    return [
        {
            "logs": f"{one.logs:,}",
            **line(benchmark, against, ratio(figures, one.name, peer_of_one), 0.6, 1.0),
            "slower": round(ratio(figures, smallest, one.name), 2),
        }
        for one, peer_of_one in peers.items()
    ]


def export(filled: Filled, rows: int) -> float:
    """Export `rows` rows and return the peak memory of the worker in MiB."""
    q = quote(json.dumps({"limit": rows}))
    headers = ["-H", f"Authorization: Token token={filled.running.token}", "-H", "Accept: application/x-ndjson"]
    command = ["curl", "-sSf", *headers, f"{filled.running.url}/v1/factory_logs?q={q}"]
    with peak_memory(filled.running.pid) as peak, subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        assert curl.stdout is not None
        lines = sum(part.count(b"\n") for part in iter(lambda: curl.stdout.read1(1 << 20), b""))
    if lines != rows or curl.returncode != 0:
        raise RuntimeError(f"the export gave {lines} of {rows} rows")
    return peak[0]


def ids(filled: Filled) -> str:
    """Return a wrk script that requests random logs."""
    return f"function request() return wrk.format(nil, wrk.path .. math.random({filled.logs})) end"


def load(filled: Filled, url: str, script: str, connections: int, seconds: int) -> Callable[[], float]:
    header = f'wrk.headers["Authorization"] = "Token token={filled.running.token}"\n'

    return lambda: wrk(url, header + script, connections=connections, seconds=seconds).per_second


@contextlib.contextmanager
def memory(body: bytes) -> Iterator[str]:
    """Run the peer that sends this body from memory."""
    with tempfile.NamedTemporaryFile(prefix="flbench-") as file:
        file.write(body)
        file.flush()
        with peer("benchmarks.peers:memory", {"PEER_BODY": file.name}) as url:
            yield url


def ask(filled: Filled, path: str) -> bytes:
    headers = {"Authorization": f"Token token={filled.running.token}"}
    return httpx.get(f"{filled.running.url}{path}", headers=headers, timeout=120).raise_for_status().content


def pgbench(filled: Filled, seconds: int) -> Callable[[], float]:
    """Return a function that measures how often pgbench reads the count and the page with the extended protocol."""

    def once() -> float:
        with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
            file.write(Units.of(filled.logs).page_sql)
            file.flush()
            command = [BINARIES / "pgbench", "-n", "-M", "extended", "-c", str(PAGE_CONNECTIONS), "-j", "1", "-T",
                       str(seconds), "-f", file.name, filled.running.database_url]  # fmt: skip
            output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found = re.search(r"tps = ([\d.]+)", output)
        if found is None:
            raise RuntimeError(f"cannot read what pgbench printed: {output}")
        return float(found[1])

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parts = {"by id": by_id, "pages": pages, "exports": exports}
    parser.add_argument("--only", choices=list(parts))
    options = parser.parse_args()
    if min(options.sizes) < 10_000 or any(size % 10_000 for size in options.sizes):
        parser.error("--sizes are multiples of 10,000")
    figures: dict[str, object] = {}
    table: Lines = []
    with contextlib.ExitStack() as stack:
        services = [Filled(size, stack.enter_context(service())) for size in sorted(options.sizes)]
        started = time.perf_counter()
        for one in services:
            asyncio.run(fill(one.running.database_url, one.logs))
        figures["seconds to fill"] = round(time.perf_counter() - started)
        for name, part in parts.items():
            if options.only in (None, name):
                figures[name], part_lines = part(services, options.rounds, options.seconds)
                table += part_lines
    report("reads" if options.only is None else f"reads-{options.only.replace(' ', '-')}", table, figures)


if __name__ == "__main__":
    main()

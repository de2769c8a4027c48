"""Benchmark of the service as the table grows: `uv run python -m benchmarks.growth [--sizes 10000 1000000]`.

Needs wrk, and 1.5 GB of disk in /tmp for each million logs. For each size there is a service with its own database;
they are measured in turns. `--only` measures a part:

- `reads`: how many times slower the first page with `num_results`, or a repeated aggregate, is than on the smallest
  table. An aggregate has the same number of buckets on each size.
- `writes`: batches about local and about random units (benchmarks/growth_writes.py).
- `memory`: a worker on the largest table under mixed load (benchmarks/growth_memory.py).
"""

import argparse
import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from urllib.parse import quote

import httpx

from benchmarks.growth_memory import memory
from benchmarks.growth_writes import writes
from benchmarks.harness import Service, interleaved, ratio, report, service, wrk
from benchmarks.seeding import filling, seed
from benchmarks.writes import line

LOGS = "/v1/factory_logs"
CONNECTIONS = 8
FLOOR, AIM = 3.0, 1.2
UNIT = "352099000000007"


def questions(newest: str) -> dict[str, dict[str, object]]:
    return {
        "all logs": {},
        "a unit's logs": {"filters": [{"name": "product_imei", "op": "==", "val": UNIT}]},
        "an app's logs": {"filters": [{"name": "app_name", "op": "==", "val": "audit"}]},
        "the logs of the last hour": {"filters": [{"name": "timestamp", "op": ">=", "val": newest}]},
    }


BUCKETS = 30
SECONDS_PER_LOG = 20
MONTH = 30 * 86_400
AGGREGATES = ("stats", "yield", "facets", "catalog")


def aggregate(name: str, logs: int, newest: str) -> str:
    """Return the path of an aggregate: over all logs, except the yield, which is over the last 30 days."""
    seconds = logs * SECONDS_PER_LOG
    bucket, daily = (f"{max(1, span // BUCKETS // 60)}m" for span in (seconds, min(seconds, MONTH)))
    month = {"filters": [{"name": "timestamp", "op": ">=", "val": newest}]}
    return {
        "stats": f"stats?bucket={bucket}&by=app_name",
        "yield": f"yield?bucket={daily}&by=app_name&q={quote(json.dumps(month))}",
        "facets": "facets?field=app_name&field=tags__jig_id&limit=100",
        "catalog": "catalog",
    }[name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--only", choices=["reads", "writes", "memory"])
    parser.add_argument("--memory-minutes", type=float, default=10.0, help="how long the mixed load lasts")
    options = parser.parse_args()
    with contextlib.ExitStack() as running:
        services = {size: running.enter_context(service()) for size in options.sizes}
        newest = {size: asyncio.run(fill(services[size].database_url, size)) for size in options.sizes}
        if options.only in (None, "reads"):
            figures, lines = reads(services, newest, options.rounds, options.seconds)
            report("growth", lines, figures)
        if options.only in (None, "writes"):
            figures, lines = writes(services, options.rounds, options.seconds)
            report("growth-writes", lines, figures)
        if options.only in (None, "memory"):
            largest = max(options.sizes)
            figures, lines = memory(services[largest], largest, options.memory_minutes)
            report("growth-memory", lines, figures)


def reads(
    services: Mapping[int, Service], newest: Mapping[int, str], rounds: int, seconds: int
) -> tuple[dict[str, object], list[dict[str, object]]]:
    figures: dict[str, object] = {}
    lines: list[dict[str, object]] = []
    for name in questions(""):
        asked = {size: questions(newest[size])[name] for size in services}
        first = {f"{size:,}": first_answer(services[size], asked[size]) for size in services}
        contenders = {f"{size:,}": page(services[size], asked[size], seconds) for size in services}
        rates = interleaved(contenders, rounds)
        figures[name] = {"seconds of the first response": first, "pages per second": rates}
        smallest, *others = contenders
        lines += [
            line(f"page 1 of {name}, {size} logs", f"{smallest} logs", ratio(rates, smallest, size), FLOOR, AIM)
            for size in others
        ]
    for name in AGGREGATES:
        paths = {size: aggregate(name, size, month_ago(newest[size])) for size in services}
        first = {f"{size:,}": first_result(services[size], paths[size]) for size in services}
        contenders = {f"{size:,}": requests(services[size], f"{LOGS}/{paths[size]}", seconds) for size in services}
        rates = interleaved(contenders, rounds)
        figures[name] = {"seconds of the first result": first, "results per second": rates}
        smallest, *others = contenders
        lines += [
            line(f"{name} asked again, {size} logs", f"{smallest} logs", ratio(rates, smallest, size), FLOOR, 1.5)
            for size in others
        ]
    return figures, lines


async def fill(database_url: str, logs: int) -> str:
    """Fill the table up to `logs` logs; return the time an hour before the newest log."""
    async with filling(database_url) as connection:
        await seed(connection, logs)
        return str(await connection.fetchval("SELECT max(timestamp) - interval '1 hour' FROM factory_logs"))


def first_answer(running: Service, q: dict[str, object]) -> float:
    """Return the seconds until the response if no count of the filter is known."""
    started = time.perf_counter()
    headers = {"Authorization": f"Token token={running.token}"}
    httpx.get(f"{running.url}{path_of(q)}", headers=headers, timeout=120).raise_for_status()
    return round(time.perf_counter() - started, 4)


def month_ago(newest: str) -> str:
    """Return the time 30 days before the newest log; `newest` is an hour before that log."""
    return str(datetime.fromisoformat(newest) + timedelta(hours=1) - timedelta(days=30))


def first_result(running: Service, path: str) -> float:
    """Return the seconds until the result of an aggregate if none is known; the request for the catalog is repeated
    until it is complete."""
    started = time.perf_counter()
    headers = {"Authorization": f"Token token={running.token}"}
    while True:
        response = httpx.get(f"{running.url}{LOGS}/{path}", headers=headers, timeout=120)
        if response.status_code != 503:
            break
    response.raise_for_status()
    return round(time.perf_counter() - started, 4)


def page(running: Service, q: dict[str, object], seconds: int) -> Callable[[], float]:
    return requests(running, path_of(q), seconds)


def requests(running: Service, path: str, seconds: int) -> Callable[[], float]:
    script = f'wrk.headers["Authorization"] = "Token token={running.token}"\n'

    return lambda: wrk(f"{running.url}{path}", script, connections=CONNECTIONS, seconds=seconds).per_second


def path_of(q: dict[str, object]) -> str:
    return f"{LOGS}?q={quote(json.dumps(q))}"


if __name__ == "__main__":
    main()

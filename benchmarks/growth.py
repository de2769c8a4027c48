"""What a page costs as the table grows: `uv run python -m benchmarks.growth [--sizes 10000 1000000 10000000]`.

Needs wrk, and 1.5 GB of disk in /tmp for each million logs. A service with a database of its own for each size, asked
in turns; the figure is how many times slower the first page with `num_results` is than on the smallest.
"""

import argparse
import asyncio
import contextlib
import json
import os
import time
from collections.abc import Callable
from urllib.parse import quote

import httpx

from benchmarks.harness import Service, interleaved, ratio, report, service, wrk
from benchmarks.seeding import filling, seed
from benchmarks.writes import line

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    os.environ.pop("FACTORY_LOGS_DATABASE_URL", None)
    with contextlib.ExitStack() as running:
        services = {size: running.enter_context(service()) for size in options.sizes}
        newest = {size: asyncio.run(fill(services[size].database_url, size)) for size in options.sizes}
        figures: dict[str, object] = {}
        lines: list[dict[str, object]] = []
        for name in questions(""):
            asked = {size: questions(newest[size])[name] for size in options.sizes}
            first = {f"{size:,}": first_answer(services[size], asked[size]) for size in options.sizes}
            contenders = {f"{size:,}": page(services[size], asked[size], options.seconds) for size in options.sizes}
            rates = interleaved(contenders, options.rounds)
            figures[name] = {"seconds of the first answer": first, "pages per second": rates}
            smallest, *others = contenders
            lines += [
                line(f"page 1 of {name}, {size} logs", f"{smallest} logs", ratio(rates, smallest, size), FLOOR, AIM)
                for size in others
            ]
        report("growth", lines, figures)


async def fill(database_url: str, logs: int) -> str:
    """See to it that there are so many logs; gives the moment an hour before the newest."""
    async with filling(database_url) as connection:
        await seed(connection, logs)
        return str(await connection.fetchval("SELECT max(timestamp) - interval '1 hour' FROM factory_logs"))


def first_answer(running: Service, q: dict[str, object]) -> float:
    """Seconds until the answer when nothing is known of the filter yet."""
    started = time.perf_counter()
    headers = {"Authorization": f"Token token={running.token}"}
    httpx.get(url(running, q), headers=headers, timeout=120).raise_for_status()
    return round(time.perf_counter() - started, 4)


def page(running: Service, q: dict[str, object], seconds: int) -> Callable[[], float]:
    script = f'wrk.headers["Authorization"] = "Token token={running.token}"\n'

    def once() -> float:
        measured = wrk(url(running, q), script, connections=CONNECTIONS, seconds=seconds)
        if measured.errors:
            raise RuntimeError(f"{measured.errors} pages were refused")
        return measured.per_second

    return once


def url(running: Service, q: dict[str, object]) -> str:
    return f"{running.url}/v1/factory_logs?q={quote(json.dumps(q))}"


if __name__ == "__main__":
    main()

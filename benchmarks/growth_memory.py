"""The memory of a worker under mixed load: `uv run python -m benchmarks.growth --memory-minutes 60`.

Several clients send what users send: single logs, batches, line protocol, logs by id, pages about a different unit each
time, stats and yields over sliding ranges of time, facets, InfluxQL, an export, and requests that are refused. The
figure is the worker's resident memory at the end compared with the end of the first minute. The worker's caches are
bounded, so it should not rise for ever; how much it rises in an hour is extrapolated from the second half.
"""

import http.client
import json
import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import quote

from benchmarks.harness import Service
from benchmarks.seeding import FIRST_DAY, LOGS_PER_UNIT
from benchmarks.writes import comparison, log

EVERY_SECONDS = 5.0
WARM_SECONDS = 60.0
LOGS = "/v1/factory_logs"
JSON = {"Content-Type": "application/json"}
Request = tuple[str, str, bytes | None, dict[str, str]]


def requests(logs: int) -> dict[str, tuple[float, Callable[[int], Request]]]:
    """Return the clients: how long each pauses after a request, and its n-th request."""

    def post(path: str, body: str, headers: dict[str, str]) -> Request:
        return "POST", path, body.encode(), headers

    def get(path: str, **headers: str) -> Request:
        return "GET", path, None, headers

    def selecting(path: str, *filters: tuple[str, str, object]) -> str:
        q = {"filters": [{"name": name, "op": op, "val": value} for name, op, value in filters]}
        return f"{path}{'&' if '?' in path else '?'}q={quote(json.dumps(q))}"

    def unit(number: int) -> str:
        return str(352_099_000_000_000 + number * 7919 % max(1, logs // LOGS_PER_UNIT))

    def hour(number: int) -> str:
        return str(datetime.fromisoformat(FIRST_DAY) + timedelta(minutes=number % 10_000))

    def influxql(number: int) -> str:
        statement = f"SELECT count(passed) FROM packing WHERE time >= '{hour(number)}' GROUP BY time(1d) LIMIT 30"
        return f"/query?db=jigs&q={quote(statement)}"

    batch = "\n".join(json.dumps(log(number)) for number in range(1000))
    lines = "\n".join(f"jig,jig_id=J-{number % 60} voltage=3.{number} {10**18 + number}" for number in range(1000))
    return {
        "single logs": (0.002, lambda n: post(LOGS, json.dumps(log(n)), JSON)),
        "single logs with a key": (0.01, lambda n: post(LOGS, json.dumps(log(n)), JSON | {"Idempotency-Key": f"k{n}"})),
        "batches": (0.5, lambda n: post(LOGS, batch, {"Content-Type": "application/x-ndjson"})),
        "line protocol": (0.5, lambda n: post("/write?db=jigs", lines, {})),
        "logs by id": (0.002, lambda n: get(f"{LOGS}/{1 + n * 7919 % logs}")),
        "pages": (0.01, lambda n: get(selecting(f"{LOGS}?results_per_page=100", ("product_imei", "==", unit(n))))),
        "stats": (0.2, lambda n: get(selecting(f"{LOGS}/stats?bucket=1d&by=app_name", ("timestamp", ">=", hour(n))))),
        "yields": (0.2, lambda n: get(selecting(f"{LOGS}/yield?bucket=1d", ("timestamp", "<", hour(n))))),
        "facets": (1.0, lambda n: get(f"{LOGS}/facets?field=app_name&field=tags__jig_id")),
        "InfluxQL": (0.2, lambda n: get(influxql(n))),
        "exports": (2.0, lambda n: get(f"{LOGS}?q={quote(json.dumps({'limit': 20_000}))}",
                                       Accept="application/x-ndjson")),
        "bad logs": (0.05, lambda n: post(LOGS, json.dumps(log(n) | {"product_imei": f"{n}"}), JSON)),
    }  # fmt: skip


def memory(running: Service, logs: int, minutes: float) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Send mixed load for this long; return the memory over time, the responses, and the lines of the table."""
    stop = threading.Event()
    statuses: dict[str, dict[str, int]] = {}
    clients = requests(logs)
    threads = [
        threading.Thread(target=send, args=(running, pause, made, statuses.setdefault(name, {}), stop))
        for name, (pause, made) in clients.items()
    ]
    for thread in threads:
        thread.start()
    started = time.monotonic()
    samples: list[tuple[float, float]] = []
    while (elapsed := time.monotonic() - started) < minutes * 60:
        samples.append((round(elapsed, 1), resident_megabytes(running.pid)))
        time.sleep(EVERY_SECONDS)
    stop.set()
    for thread in threads:
        thread.join()
    warm = next(megabytes for seconds, megabytes in samples if seconds >= WARM_SECONDS)
    last = samples[-1][1]
    per_hour = slope(samples[len(samples) // 2 :]) * 3600
    figures: dict[str, object] = {"minutes": minutes, "seconds and MB": samples, "responses": statuses}
    return figures, [
        comparison(f"memory of the worker after {minutes:g} minutes: {last:.0f} MB", f"after one: {warm:.0f} MB",
               last / warm),
        comparison("megabytes an hour in the second half", "", per_hour),
    ]  # fmt: skip


def send(
    running: Service,
    pause: float,
    made: Callable[[int], Request],
    statuses: dict[str, int],
    stop: threading.Event,
) -> None:
    connection = http.client.HTTPConnection(running.url.removeprefix("http://"), timeout=120)
    number = 0
    while not stop.wait(pause):
        number += 1
        method, path, body, headers = made(number)
        try:
            connection.request(method, path, body, headers | {"Authorization": f"Token {running.token}"})
            response = connection.getresponse()
            while response.read(1 << 16):
                pass
            status = str(response.status)
        except (http.client.RemoteDisconnected, ConnectionError):
            connection.close()
            status = "idle connection closed"  # on a busy machine, this thread may not run for seconds
        statuses[status] = statuses.get(status, 0) + 1
    connection.close()


def resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def slope(samples: list[tuple[float, float]]) -> float:
    """Return the megabytes a second of the line through the samples with the least squares."""
    x_mean = sum(x for x, _ in samples) / len(samples)
    y_mean = sum(y for _, y in samples) / len(samples)
    spread = sum((x - x_mean) ** 2 for x, _ in samples)
    return sum((x - x_mean) * (y - y_mean) for x, y in samples) / spread if spread else 0.0

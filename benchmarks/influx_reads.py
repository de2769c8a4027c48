"""InfluxQL against InfluxDB 1.6: `uv run python -m benchmarks.influx --only reads [--points 1000000] [--rounds 5]`.

The same points are in both: ten measurements with eight jigs each, 5,000 series, a point each half second. So a day of
one measurement has 17,280 points, however many there are in all. Each round asks each question of a measurement and a
time that were not asked of before, and then once more: the first time and the next one are given apart. Both take
turns, and their responses must be equal. Before, all points are in the catalog: a worker adds them in the background.
"""

import http.client
import json
import math
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

from benchmarks.harness import BINARIES, service
from benchmarks.influxd import influxd
from benchmarks.writes import BATCH_WORKERS

APPS = 10
JIGS = 80
UNITS = 5_000
BATCH = 5_000
STEP_NS = 500_000_000
START_NS = 1_704_067_200_000_000_000
DAY_NS, HOUR_NS = 86_400 * 10**9, 3_600 * 10**9
FIRST_AIM, AGAIN_AIM = 3.0, 1.0
"""What the time of Factory Logs by that of InfluxDB should not exceed."""

Question = Callable[[int, int], str]
"""A statement about the measurement and the day of a round."""


def _day(day: int, length: int = DAY_NS) -> str:
    start = START_NS + day * DAY_NS
    return f"time >= {start} AND time < {start + length}"


QUESTIONS: dict[str, Question] = {
    "mean by hour over a day": lambda app, day: (
        f"SELECT mean(voltage) FROM app_{app} WHERE {_day(day)} GROUP BY time(1h)"
    ),
    "last value by tag": lambda app, day: f"SELECT last(voltage) FROM app_{app} GROUP BY jig_id",
    "raw points of an hour": lambda app, day: (
        f"SELECT voltage, passed, cycles FROM app_{app} WHERE {_day(day, HOUR_NS)}"
    ),
    "SHOW TAG VALUES": lambda app, day: f"SHOW TAG VALUES FROM app_{app} WITH KEY = jig_id",
}


def point(number: int) -> str:
    """Return the line of one point; a unit is always tested on the same jig."""
    unit = number * 7919 % UNITS
    jig = unit % JIGS
    return (
        f"app_{jig % APPS},hostname=CN-REG0{jig % 9},jig_id=J-{jig:02},product_imei={352099001000000 + unit} "
        f"passed={'false' if number % 50 == 0 else 'true'},voltage={3.28 + number % 97 / 100!r},"
        f"cycles={number % 1000}i {START_NS + number * STEP_NS}"
    )


class Server:
    """One of the two, over one connection that stays open."""

    def __init__(self, url: str, token: str | None) -> None:
        self._connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=600)
        self._headers = {} if token is None else {"Authorization": f"Token {token}"}

    def write(self, body: bytes) -> None:
        """Raises RuntimeError if a point is refused."""
        self._request("POST", "/write?db=jigs", body, 204)

    def ask(self, statement: str) -> tuple[float, bytes]:
        """Return the seconds until the whole response was there, and the response."""
        path = f"/query?{urlencode({'db': 'jigs', 'q': statement, 'epoch': 'ns'})}"
        started = time.perf_counter()
        body = self._request("GET", path, None, 200)
        return time.perf_counter() - started, body

    def wait_for_catalog(self) -> float:
        """Return the seconds until all points are in the catalog, which a worker adds to it in the background too."""
        started, status = time.perf_counter(), 503
        while status == 503:
            status, _ = self._response("GET", "/query?db=jigs&q=SHOW+TAG+VALUES+WITH+KEY+%3D+hostname", None)
        return time.perf_counter() - started

    def _request(self, method: str, path: str, body: bytes | None, expected: int) -> bytes:
        status, text = self._response(method, path, body)
        if status != expected:
            raise RuntimeError(f"{method} {path[:200]}: {status} {text[:500]!r}")
        return text

    def _response(self, method: str, path: str, body: bytes | None) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
        except http.client.RemoteDisconnected:  # it was idle while the other server was busy
            self._connection.close()
            self._connection.request(method, path, body, self._headers)
            response = self._connection.getresponse()
        return response.status, response.read()


def reads(sizes: Sequence[int], rounds: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Measure each question at each number of points."""
    figures: dict[str, object] = {}
    lines: list[dict[str, object]] = []
    for points in sizes:
        seconds = _measured(points, rounds)
        figures[f"seconds, {points} points"] = seconds
        lines += [_line(name, points, seconds) for name in QUESTIONS]
    return figures, lines


def _measured(points: int, rounds: int) -> dict[str, list[float]]:
    days = points * STEP_NS // DAY_NS
    if rounds > min(days, APPS):
        raise SystemExit(f"{points} points have {days} whole days: at most {min(days, APPS)} rounds")
    with service(workers=BATCH_WORKERS) as running, influxd() as (influx_url, _):
        servers = {"Factory Logs": Server(running.url, running.token), "InfluxDB": Server(influx_url, None)}
        for start in range(0, points, BATCH):
            body = "\n".join(point(number) for number in range(start, min(points, start + BATCH))).encode()
            for server in servers.values():
                server.write(body)
        # As autovacuum does it, some time after such a load.
        vacuum = [str(BINARIES / "psql"), running.database_url, "-qc", "VACUUM (ANALYZE) factory_logs"]
        subprocess.run(vacuum, check=True)
        seconds = {"the catalog": [servers["Factory Logs"].wait_for_catalog()]}
        for number in range(rounds):
            for name, question in QUESTIONS.items():
                _ask_all(servers, name, question(number, number), number, seconds)
    return seconds


def _ask_all(
    servers: Mapping[str, Server], name: str, statement: str, number: int, seconds: dict[str, list[float]]
) -> None:
    """Ask both, twice each; the one that is asked first changes with the round."""
    order = list(servers) if number % 2 == 0 else list(servers)[::-1]
    responses = {}
    for again in ("first", "again"):
        for server in order:
            took, responses[server] = servers[server].ask(statement)
            seconds.setdefault(f"{name}, {again}, {server}", []).append(took)
    if not _equal(*(json.loads(response) for response in responses.values())):
        raise RuntimeError(f"{statement}: {responses}"[:2000])


def _equal(one: object, other: object) -> bool:
    """Return whether two responses are equal, but for the last digits of floats."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(value, other[name]) for name, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, float) and isinstance(other, (float, int)):
        return math.isclose(one, other, rel_tol=1e-9)
    return one == other


def _line(name: str, points: int, seconds: Mapping[str, Sequence[float]]) -> dict[str, object]:
    line: dict[str, object] = {"benchmark": name, "against": "InfluxDB 1.6", "points": points}
    for again, aim in (("first", FIRST_AIM), ("again", AGAIN_AIM)):
        ours, theirs = (seconds[f"{name}, {again}, {server}"] for server in ("Factory Logs", "InfluxDB"))
        line |= {
            f"{again}, ratio of times": round(statistics.median(a / b for a, b in zip(ours, theirs, strict=True)), 2),
            f"{again}, aim": aim,
            f"{again}, ms": round(statistics.median(ours) * 1000, 1),
            f"{again}, InfluxDB's ms": round(statistics.median(theirs) * 1000, 1),
        }
    return line

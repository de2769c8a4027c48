"""InfluxDB's calls against InfluxDB 1.6 and psql: `uv run python -m benchmarks.influx [--rounds 5] [--seconds 4]`.

The same points go to `/write` of both, one at a time and 5,000 at a time; then a dump is imported against psql's \\copy
of its rows, and InfluxQL is sent to both (benchmarks/influx_reads.py). Needs wrk, psql of the embedded PostgreSQL, and
influxd (Debian: influxdb); without influxd only the import is measured. Both servers run with their defaults, which
flush each write to the disk, and on all cores: Factory Logs with as many workers, as docs/explanation/batches.md says,
and InfluxDB as it does by itself. A first round of writes warms both up and is not counted. `benchmarks.space` compares
the bytes on disk.
"""

import argparse
import asyncio
import csv
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg

from benchmarks.harness import BINARIES, Service, interleaved, ratio, report, service, wrk
from benchmarks.influx_reads import reads
from benchmarks.influxd import influxd
from benchmarks.writes import BATCH_WORKERS, comparison, line

SINGLE_CONNECTIONS = 64
BATCH_POINTS = 5_000
BATCH_CONNECTIONS = 4
BATCHES = 8
IMPORTED_POINTS = 500_000
EPOCH_NS = 1_706_708_700_000_000_000
FIELDS = ("passed", "voltage", "cycles", "note")


def series(number: int) -> str:
    return f"tiger_test_jig_production,hostname=CN-REG03,jig_id=J-07,product_imei={352099001000000 + number % 5000}"


def values(number: int) -> tuple[str, str, str, str]:
    return ("false" if number % 50 == 0 else "true", repr(3.28 + number % 97 / 100), f"{number % 1000}i", '"ok"')


def point(number: int) -> str:
    """Return a point as a jig writes it; each number has a different time."""
    fields = ",".join(f"{name}={value}" for name, value in zip(FIELDS, values(number), strict=True))
    return f"{series(number)} {fields} {EPOCH_NS + number * 1_000_000}"


class Writer:
    """Sends new points to one server."""

    def __init__(self, url: str, token: str | None, seconds: int) -> None:
        self._url = url
        self._seconds = seconds
        self._headers = {} if token is None else {"Authorization": f"Token {token}"}
        self._next = 0

    def singles(self) -> float:
        """Return points per second, one per request."""
        self._next += 10_000_000
        script = f"""
local number, headers = {self._next}, {{ {", ".join(f'["{k}"] = "{v}"' for k, v in self._headers.items())} }}
function request()
  number = number + 1
  local head = "tiger_test_jig_production,hostname=CN-REG03,jig_id=J-07,product_imei="
  local line = head .. string.format("%d passed=true,voltage=3.28,cycles=%di,note=\\"ok\\" %d000000",
    352099001000000 + number % 5000, number % 1000, {EPOCH_NS // 10**6} + number)
  return wrk.format("POST", "/write?db=jigs", headers, line)
end
"""
        return wrk(self._url, script, connections=SINGLE_CONNECTIONS, seconds=self._seconds).per_second

    def batches(self) -> float:
        """Return points per second, 5,000 per request, from four connections."""
        self._next += 10_000_000
        bodies = [
            "\n".join(point(self._next + start + index) for index in range(BATCH_POINTS)).encode()
            for start in range(0, BATCHES * BATCH_POINTS, BATCH_POINTS)
        ]
        waiting, failed = iter(bodies), []
        lock = threading.Lock()

        def send() -> None:
            connection = http.client.HTTPConnection(self._url.removeprefix("http://"), timeout=120)
            while True:
                with lock:
                    body = next(waiting, None)
                if body is None:
                    return
                connection.request("POST", "/write?db=jigs", body, self._headers)
                answer = connection.getresponse()
                if answer.status != 204:
                    failed.append(answer.read())
                answer.read()

        threads = [threading.Thread(target=send) for _ in range(BATCH_CONNECTIONS)]
        started = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        elapsed = time.perf_counter() - started
        if failed:
            raise RuntimeError(f"{self._url}: {failed[0]!r}")
        return BATCHES * BATCH_POINTS / elapsed


def writes(rounds: int, seconds: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    with service(workers=BATCH_WORKERS) as running, influxd() as (influx_url, _):
        ours, theirs = Writer(running.url, running.token, seconds), Writer(influx_url, None, seconds)
        contenders: dict[str, Callable[[], float]] = {
            "1, Factory Logs": ours.singles, "1, InfluxDB": theirs.singles,
            "5,000, Factory Logs": ours.batches, "5,000, InfluxDB": theirs.batches,
        }  # fmt: skip
        rates = interleaved(contenders, 1 + rounds)
        counted = {name: by_round[1:] for name, by_round in rates.items()}
    lines = [
        compared(
            f"points/s, {name} a write, {BATCH_WORKERS} workers",
            ratio(counted, f"{name}, Factory Logs", f"{name}, InfluxDB"),
        )
        for name in ("1", "5,000")
    ]
    return {"points per second, the first not counted": rates}, lines


def compared(benchmark: str, measured: float) -> dict[str, object]:
    """Return a line of the table. InfluxDB is a comparison, not a target."""
    return comparison(benchmark, "InfluxDB 1.6", measured)


def imports(rounds: int) -> tuple[dict[str, object], list[dict[str, object]]]:
    """Measure imports. Each round imports a new dump, as the same one would add nothing, and copies the same rows."""
    with service() as running, tempfile.TemporaryDirectory(prefix="flbench-import-") as name:
        folder, number = Path(name), iter(range(10**6))
        # As in an installation, Python caches compiled modules.
        environment = os.environ | {
            "FACTORY_LOGS_DATABASE_URL": running.database_url, "PYTHONPYCACHEPREFIX": str(folder / "compiled"),
        }  # fmt: skip
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def imported() -> float:
            dump = folder / "dump.lp"
            write_dump(dump, range(start := next(number) * IMPORTED_POINTS, start + IMPORTED_POINTS))
            return timed(["factory-logs", "import", str(dump)], environment)

        def copied() -> float:
            file = folder / "rows.csv"
            write_rows(file, range(start := next(number) * IMPORTED_POINTS, start + IMPORTED_POINTS))
            copy = f"\\copy factory_logs (app_name, product_imei, timestamp, tags, fields) from '{file}' csv"
            return timed([str(BINARIES / "psql"), running.database_url, "-qc", copy], environment)

        subprocess.run(
            ["factory-logs", "import", "-", "--format", "lp"], input=b"m f=1 1", check=True, env=environment,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        figures = interleaved({"import": imported, "psql \\copy": copied}, rounds)
        check(running, 1 + 2 * rounds * IMPORTED_POINTS)
    measured = line(
        "import of a dump, rows/s", "psql \\copy of its rows", ratio(figures, "import", "psql \\copy"), 0.6, 1.0
    )
    return {"rows per second": figures}, [measured]


def timed(command: Sequence[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return IMPORTED_POINTS / (time.perf_counter() - started)


def check(running: Service, points: int) -> None:
    async def count() -> int:
        connection = await asyncpg.connect(running.database_url)
        try:
            return int(await connection.fetchval("select count(*) from factory_logs"))
        finally:
            await connection.close()

    found = asyncio.run(count())
    if found != points:
        raise RuntimeError(f"{points} rows were written, {found} are there")


def write_dump(file: Path, numbers: range) -> None:
    """Write a dump in the order of influx_inspect: by series, then by field, then by time."""
    by_series: dict[str, list[int]] = {}
    for number in numbers:
        by_series.setdefault(series(number), []).append(number)
    with file.open("w") as opened:
        opened.write("# DDL\nCREATE DATABASE jigs WITH NAME autogen\n# DML\n# CONTEXT-DATABASE:jigs\n")
        opened.write("# CONTEXT-RETENTION-POLICY:autogen\n# writing tsm data\n")
        for head, own in sorted(by_series.items()):
            for index, name in sorted(enumerate(FIELDS), key=lambda pair: pair[1]):
                opened.writelines(
                    f"{head} {name}={values(number)[index]} {EPOCH_NS + number * 1_000_000}\n" for number in own
                )


def write_rows(file: Path, numbers: range) -> None:
    tags = json.dumps({"hostname": "CN-REG03", "jig_id": "J-07"}, separators=(",", ":"))
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        for number in numbers:
            passed, voltage, cycles, _ = values(number)
            happened = datetime.fromtimestamp(EPOCH_NS // 10**9, UTC) + timedelta(milliseconds=number)
            fields = f'{{"cycles":{cycles[:-1]},"note":"ok","passed":{passed},"voltage":{voltage}}}'
            writer.writerow(["tiger_test_jig_production", 352099001000000 + number % 5000,
                             happened.replace(tzinfo=None), tags, fields])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--points", type=int, action="append", help="how many points are read; by default 1,000,000")
    parser.add_argument("--only", choices=["writes", "import", "reads"])
    options = parser.parse_args()
    parts = [options.only] if options.only else ["writes", "import", "reads"]
    if shutil.which("influxd") is None:
        print("influxd is not installed: only the import is measured")
        parts = [part for part in parts if part == "import"]
    if "writes" in parts:
        figures, lines = writes(options.rounds, options.seconds)
        report("influx-writes", lines, figures)
    if "import" in parts:
        figures, lines = imports(options.rounds)
        report("influx-import", lines, figures)
    if "reads" in parts:
        figures, lines = reads(options.points or [1_000_000], options.rounds)
        report("influx-reads", lines, figures)


if __name__ == "__main__":
    main()

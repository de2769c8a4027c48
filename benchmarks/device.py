"""Benchmark of the device client: `uv run python -m benchmarks.device [--rounds 5]`. It needs only the dependencies.

It compares send() with writing the same record with the standard library's logging and flushing it to the same disk,
and the delivery of a spool with posting the same lines in the same batches directly.
"""

import argparse
import json
import logging
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx

from benchmarks.harness import Service, interleaved, ratio, report, service
from benchmarks.writes import log
from factory_logs.client import Client, ClientSettings
from factory_logs.client.spool import Spool
from factory_logs.client.spool_line import log_line
from factory_logs.schemas.record_limits import RecordLimits

SENDS = 1000
DRAINED = 20_000
BATCH = 1000


class Flushed(logging.FileHandler):
    """The handler of the standard library, but each record is on the disk when the call returns."""

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        os.fsync(self.stream.fileno())


class Unreachable(httpx.BaseTransport):
    """The link of a jig whose server cannot be reached, so that only send() itself is measured."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("unreachable")


def median_microseconds(send: Callable[[int], object]) -> float:
    taken = []
    for number in range(SENDS):
        started = time.perf_counter()
        send(number)
        taken.append(time.perf_counter() - started)
    return statistics.median(taken) * 1e6


def by_client(folder: Path, fsync: str) -> float:
    settings = ClientSettings.model_validate({"fsync": fsync, "exit_seconds": 0, "backoff_base_seconds": 60})
    with Client("http://jig.test", "t", spool=folder, settings=settings, transport=Unreachable()) as client:
        client.send(**sent(0))
        return median_microseconds(lambda number: client.send(**sent(number)))


def by_logging(file: Path, handler_type: type[logging.FileHandler]) -> float:
    logger = logging.Logger("jig")
    handler = handler_type(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    try:
        return median_microseconds(lambda number: logger.info(json.dumps(sent(number))))
    finally:
        handler.close()


def sent(number: int) -> dict[str, Any]:
    """Return the record without its time, which both contenders set themselves."""
    return {name: value for name, value in log(number).items() if name != "timestamp"}


def sends(rounds: int) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    with TemporaryDirectory(prefix="flbench-") as name:
        folder, count = Path(name), iter(range(10**6))
        contenders = {
            "send(), fsync full": lambda: by_client(folder / str(next(count)), "full"),
            "FileHandler with fsync": lambda: by_logging(folder / str(next(count)), Flushed),
            "send(), fsync normal": lambda: by_client(folder / str(next(count)), "normal"),
            "FileHandler": lambda: by_logging(folder / str(next(count)), logging.FileHandler),
        }
        figures = interleaved(contenders, rounds)
    return figures, [
        line(figures, "send(), fsync full", "FileHandler with fsync", "µs"),
        line(figures, "send(), fsync normal", "FileHandler", "µs"),
    ]


def drains(running: Service, rounds: int) -> tuple[dict[str, list[float]], list[dict[str, object]]]:
    limits = RecordLimits(ClientSettings().max_record_bytes, ClientSettings().max_nesting)
    lines = [log_line(log(number), limits) for number in range(DRAINED)]
    batches = [b"\n".join(lines[start : start + BATCH]) + b"\n" for start in range(0, DRAINED, BATCH)]
    headers = {"Authorization": f"Token token={running.token}", "Content-Type": "application/x-ndjson"}

    def by_hand() -> float:
        with httpx.Client(headers=headers, timeout=60) as http:
            started = time.perf_counter()
            for batch in batches:
                http.post(f"{running.url}/v1/factory_logs", content=batch).raise_for_status()
            return DRAINED / (time.perf_counter() - started)

    def by_spool() -> float:
        with TemporaryDirectory(prefix="flbench-") as folder:
            spool = Spool(Path(folder), fsync="normal")
            spool.put(lines)
            spool.file.close()
            started = time.perf_counter()
            with Client(running.url, running.token, spool=folder) as client:
                if not client.flush(300):
                    raise RuntimeError(f"the spool does not empty: {client.status().trouble}")
                return DRAINED / (time.perf_counter() - started)

    figures = interleaved({"drain of a spool": by_spool, "POST of the same batches": by_hand}, rounds)
    return figures, [line(figures, "drain of a spool", "POST of the same batches", "logs/s")]


def line(figures: dict[str, list[float]], name: str, peer: str, unit: str) -> dict[str, object]:
    return {
        "benchmark": name, "against": peer, "ratio": round(ratio(figures, name, peer), 2),
        "measured": round(statistics.median(figures[name])), "peer": round(statistics.median(figures[peer])),
        "unit": unit,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    logging.getLogger("factory_logs.client").setLevel(logging.ERROR)  # its server is unreachable on purpose
    sent_figures, table = sends(options.rounds)
    with service() as running:
        drained_figures, more = drains(running, options.rounds)
    report("device", [*table, *more], {"microseconds": sent_figures, "logs per second": drained_figures})


if __name__ == "__main__":
    main()

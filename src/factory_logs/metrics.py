"""What operators watch, as Prometheus metrics: one home for every name (docs/operating.md).

With several workers prometheus_client keeps the values in files under PROMETHEUS_MULTIPROC_DIR, which `serve` sets, so
that any worker can answer for all of them.
"""

import os
from functools import lru_cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import REGISTRY

DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000, 20_000)

REQUESTS = Counter("factory_logs_requests", "Requests answered", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "factory_logs_request_seconds", "From the request's headers to the end of its answer", ["method", "route"],
    buckets=_SECONDS,
)  # fmt: skip
REJECTED = Counter("factory_logs_rejected", "Requests refused, by the kind of error", ["reason"])
LEFT_OUT = Counter("factory_logs_left_out", "Logs refused by writes that store the others", ["by"])
STORED = Counter("factory_logs_stored", "Logs committed", ["by"])
COMMIT_ROWS = Histogram("factory_logs_commit_rows", "Logs in one commit", ["by"], buckets=_ROWS)
COMMIT_SECONDS = Histogram("factory_logs_commit_seconds", "From sending a commit to its end", ["by"], buckets=_SECONDS)
COMMIT_FAILURES = Counter("factory_logs_commit_failures", "Group commits that failed as a whole")
QUEUED_LOGS = Gauge("factory_logs_queued_logs", "Logs that wait for a group commit", multiprocess_mode="livesum")
QUEUED_BYTES = Gauge("factory_logs_queued_bytes", "Bytes that wait for a group commit", multiprocess_mode="livesum")
BODY_BYTES = Gauge("factory_logs_body_bytes", "Bytes of request bodies being held", multiprocess_mode="livesum")


class CommitMetrics:
    """The children of one way to commit, looked up once: labels cost more than counting."""

    def __init__(self, by: str) -> None:
        self._stored = STORED.labels(by)
        self._rows = COMMIT_ROWS.labels(by)
        self._seconds = COMMIT_SECONDS.labels(by)

    def committed(self, rows: int, seconds: float) -> None:
        self._stored.inc(rows)
        self._rows.observe(rows)
        self._seconds.observe(seconds)


@lru_cache(maxsize=1000)
def _request_children(method: str, route: str, status: int) -> tuple[Counter, Histogram]:
    return REQUESTS.labels(method, route, str(status)), REQUEST_SECONDS.labels(method, route)


def answered(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request; `route` is a template, never a path, as each label value is kept for ever."""
    requests, histogram = _request_children(method, route, status)
    requests.inc()
    histogram.observe(seconds)


def exposition() -> bytes:
    """All metrics of all workers in Prometheus' text format."""
    if DIRECTORY_VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_dead_workers() -> None:
    """A worker that was killed leaves its gauges behind; a new one calls this when it starts."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    if directory is None:
        return
    for file in Path(directory).glob("gauge_live*.db"):
        pid = file.stem.rpartition("_")[2]
        if pid.isdigit() and not _is_alive(int(pid)):
            mark_process_dead(int(pid))  # type: ignore[no-untyped-call]


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

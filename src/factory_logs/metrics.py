"""The Prometheus metrics of the service, with all their names (docs/how-to/operating.md).

With several workers, prometheus_client stores the values in files under PROMETHEUS_MULTIPROC_DIR, which `serve` sets,
so that each worker can report the metrics of all.
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

REQUESTS = Counter("factory_logs_requests", "Requests with a response", ["method", "route", "status"])
REQUEST_SECONDS = Histogram(
    "factory_logs_request_seconds", "Seconds from a request's headers to the end of its response", ["method", "route"],
    buckets=_SECONDS,
)  # fmt: skip
REJECTED = Counter("factory_logs_rejected", "Refused requests, by the kind of error", ["reason"])
LEFT_OUT = Counter("factory_logs_left_out", "Logs refused in writes that stored the other logs", ["by"])
STORED = Counter("factory_logs_stored", "Logs committed", ["by"])
COMMIT_ROWS = Histogram("factory_logs_commit_rows", "Logs in one commit", ["by"], buckets=_ROWS)
COMMIT_SECONDS = Histogram(
    "factory_logs_commit_seconds", "Seconds from sending a commit to its end", ["by"], buckets=_SECONDS
)
COMMIT_FAILURES = Counter("factory_logs_commit_failures", "Group commits that failed as a whole")
QUEUED_LOGS = Gauge("factory_logs_queued_logs", "Logs that wait for a group commit", multiprocess_mode="livesum")
QUEUED_BYTES = Gauge("factory_logs_queued_bytes", "Bytes that wait for a group commit", multiprocess_mode="livesum")
BODY_BYTES = Gauge("factory_logs_body_bytes", "Bytes of request bodies in memory", multiprocess_mode="livesum")
TAILS = Gauge("factory_logs_tails", "Open tails of new logs", multiprocess_mode="livesum")
EXPORTS = Gauge("factory_logs_exports", "Running NDJSON and CSV exports", multiprocess_mode="livesum")
STREAMS_REFUSED = Counter(
    "factory_logs_streams_refused", "Tails and exports refused because too many were running", ["kind"]
)
TAILS_REFUSED, EXPORTS_REFUSED = (STREAMS_REFUSED.labels(kind) for kind in ("tail", "export"))
DISK_FREE = Gauge(
    "factory_logs_disk_free_bytes", "Bytes free for the embedded database's tables and write-ahead log", ["of"],
    multiprocess_mode="livemin",
)  # fmt: skip

DISK_RESERVE = Gauge(
    "factory_logs_disk_reserve_bytes",
    "New logs are refused if fewer bytes than this are free",
    multiprocess_mode="livemax",
)
INFO = Gauge("factory_logs_info", "1; the version is in the label", ["version"], multiprocess_mode="livemax")
DATABASE_UP = Gauge("factory_logs_database_up", "1 while PostgreSQL responds, else 0", multiprocess_mode="livemin")
DATABASE_BYTES = Gauge("factory_logs_database_bytes", "Size of the database", multiprocess_mode="livemostrecent")
DATABASE_CONNECTIONS = Gauge(
    "factory_logs_database_connections", "Connections to PostgreSQL, of all clients",
    multiprocess_mode="livemostrecent",
)  # fmt: skip
DATABASE_MAX_CONNECTIONS = Gauge(
    "factory_logs_database_max_connections", "PostgreSQL's max_connections", multiprocess_mode="livemostrecent"
)
OLDEST_TRANSACTION_SECONDS = Gauge(
    "factory_logs_database_oldest_transaction_seconds", "Age of the oldest open transaction",
    multiprocess_mode="livemostrecent",
)  # fmt: skip
DEAD_ROWS = Gauge(
    "factory_logs_database_dead_rows", "Dead rows of the table factory_logs that wait for vacuum",
    multiprocess_mode="livemostrecent",
)  # fmt: skip
REPLICATION_LAG_BYTES = Gauge(
    "factory_logs_database_replication_lag_bytes", "WAL that the last standby has not replayed; 0 without a standby",
    multiprocess_mode="livemostrecent",
)  # fmt: skip
LAST_LOG_SECONDS = Gauge(
    "factory_logs_last_log_timestamp_seconds", "Newest timestamp of an app's logs, as Unix time", ["app_name"],
    multiprocess_mode="livemostrecent",
)  # fmt: skip
CATALOG_MISSING = Gauge(
    "factory_logs_catalog_missing_logs", "Ids up to the watermark that are not yet in the catalog",
    multiprocess_mode="livemostrecent",
)  # fmt: skip
CATALOG_SECONDS = Counter("factory_logs_catalog_seconds", "Time spent in the background on adding logs to the catalog")
RETENTION_RUNS = Counter(
    "factory_logs_retention_runs", "Runs of retention policies by serve; the outcome is done or failed",
    ["policy", "outcome"],
)  # fmt: skip
RETENTION_REMOVED = Counter("factory_logs_retention_removed_logs", "Logs that retention policies removed", ["policy"])
RETENTION_DONE = Gauge(
    "factory_logs_retention_done_timestamp_seconds",
    "The scheduled hour up to which a retention policy has run, as Unix time", ["policy"],
    multiprocess_mode="livemostrecent",
)  # fmt: skip


class CommitMetrics:
    """The metrics of one kind of commit. Their labels are looked up once, because a look-up costs more than
    counting."""

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


def count_response(method: str, route: str, status: int, seconds: float) -> None:
    """Count one request. `route` is the template of the path and never a path, because each value of a label stays in
    memory."""
    requests, histogram = _request_children(method, route, status)
    requests.inc()
    histogram.observe(seconds)


def exposition() -> bytes:
    """Return the metrics of all workers in the text format of Prometheus."""
    if DIRECTORY_VARIABLE not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def forget_dead_workers() -> None:
    """Delete the gauges of workers that were killed. Each worker calls this when it starts."""
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

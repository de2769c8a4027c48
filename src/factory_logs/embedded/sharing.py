"""Share one server among all processes that use it: the first process starts it, the last one stops it.

- A process holds an exclusive lock on `postgres.lock` in the data directory while it starts or stops the server.
- Each process holds a shared lock on `in-use.lock` while it uses the server. A process that can lock it exclusively
  when it leaves was the last user, and stops the server. The kernel releases the locks of a killed process. The next
  process then shares the server that is still running, and the last one stops it.
"""

import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import structlog

from factory_logs.embedded.binaries import named_binaries, reachable_binaries
from factory_logs.embedded.errors import EmbeddedPostgresError
from factory_logs.embedded.files import Folder, make_data_dir
from factory_logs.embedded.os_user import check_reachable, cluster_dir, server_user
from factory_logs.embedded.server import Server, ensure_running, is_server, postmaster_pid, socket_dir, stop_if_last
from factory_logs.embedded.server_log import MAX_LOG_BYTES, rotate_log

POSTGRES_LOCK = "postgres.lock"
IN_USE_LOCK = "in-use.lock"
WATCH_SECONDS = 0.5
LONGEST_WATCH_SECONDS = 4.0
"""The interval between checks of the server. It grows up to this value while the server fails to start."""

_log = structlog.get_logger(__name__)


@contextmanager
def running(
    data_dir: Path,
    *,
    watch: bool = False,
    max_log_bytes: int = MAX_LOG_BYTES,
    memory_bytes: int | None = None,
    bin_dir: Path | None = None,
) -> Iterator[str]:
    """Yield the URL of a running server on `data_dir`, which is created on first use. The last process to leave stops
    the server.

    The process that starts the server sizes it for `memory_bytes`, by default the machine's memory. `bin_dir` is the
    folder of PostgreSQL's programs, by default that of the wheel. With `watch`, a thread restarts the server if it
    ends, and limits `postgres.log` to `max_log_bytes`, as each start does. Several processes and threads may call this
    concurrently. Blocks while the server starts and stops. Raises
    EmbeddedPostgresError.
    """
    with ExitStack() as opened:
        with _explained(data_dir):
            server = prepare(data_dir, max_log_bytes, memory_bytes, bin_dir)
            folder = opened.enter_context(server.opened())
            gate = opened.enter_context(open_lock(folder, POSTGRES_LOCK))
            use = opened.enter_context(open_lock(folder, IN_USE_LOCK))
            with held(gate):
                fcntl.flock(use, fcntl.LOCK_SH)
                try:
                    ensure_running(server)
                except (KeyboardInterrupt, SystemExit):  # the server may be recovering
                    stop_if_last(server, use)
                    raise
        try:
            with _watched(server) if watch else nullcontext():
                yield server.url
        finally:
            with held(gate):
                stop_if_last(server, use)


@contextmanager
def _watched(server: Server) -> Iterator[None]:
    ending = threading.Event()
    watcher = threading.Thread(target=_watch, args=(server, ending), name="embedded-postgres", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ending.set()
        watcher.join()


def _watch(server: Server, ending: threading.Event) -> None:
    """Restart the server if it has ended, for example because it was killed for its memory use or the disk was full."""
    failures = 0
    while not ending.wait(min(WATCH_SECONDS * 2**failures, LONGEST_WATCH_SECONDS)):
        if is_server(postmaster_pid(server.cluster_dir), server.cluster_dir):
            failures = 0
            _cut_log(server)
            continue
        _log.warning("the embedded PostgreSQL has ended", data_dir=str(server.data_dir))
        try:
            with server.opened() as folder, open_lock(folder, POSTGRES_LOCK) as gate, held(gate):
                ensure_running(server, ending.is_set)
        except (EmbeddedPostgresError, OSError) as error:
            failures += 1
            _log.error("the embedded PostgreSQL cannot be restarted", reason=str(error))
        else:
            _log.info("the embedded PostgreSQL was restarted", data_dir=str(server.data_dir))


def _cut_log(server: Server) -> None:
    try:
        with server.opened() as folder:
            rotate_log(folder, server.max_log_bytes)
    except (EmbeddedPostgresError, OSError) as error:
        _log.warning("the log of the embedded PostgreSQL cannot be rotated", reason=str(error))


def has_database(data_dir: Path) -> bool:
    """Return whether `data_dir` contains a database, without starting or creating anything."""
    return cluster_dir(data_dir.expanduser().resolve()).is_dir()


def is_running(data_dir: Path) -> bool:
    """Return whether a server runs on `data_dir`, without starting or creating anything."""
    cluster = cluster_dir(data_dir.expanduser().resolve())
    return is_server(postmaster_pid(cluster), cluster)


@contextmanager
def _explained(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL cannot use the data directory {data_dir}: {error}. "
            "Change the permissions, or set FACTORY_LOGS_DATA_DIR to another folder."
        ) from error


def prepare(
    data_dir: Path,
    max_log_bytes: int = MAX_LOG_BYTES,
    memory_bytes: int | None = None,
    bin_dir: Path | None = None,
) -> Server:
    """Return the server of a data directory, without starting it. The directory is created on first use."""
    data_dir = data_dir.expanduser().resolve()
    make_data_dir(data_dir)
    user = server_user(data_dir)
    check_reachable(data_dir, user)
    binaries = reachable_binaries(user) if bin_dir is None else named_binaries(bin_dir, user)
    return Server(data_dir, binaries, user, socket_dir(data_dir, user), max_log_bytes, memory_bytes)


@contextmanager
def open_lock(folder: Folder, name: str) -> Iterator[int]:
    descriptor = folder.open_or_make(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def held(gate: int) -> Iterator[None]:
    fcntl.flock(gate, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(gate, fcntl.LOCK_UN)

"""Several workers: the supervisor waits for slow starts and replaces a worker that hangs."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults import processes
from tests.serving import COMMAND, READY_SECONDS, free_port, serving, workers

pytestmark = pytest.mark.slow

SLOW_START = """
import sys, time
if "--multiprocessing-fork" in sys.orig_argv:
    time.sleep({seconds})
"""


def slow_start(folder: Path, seconds: float) -> dict[str, str]:
    """Return an environment in which a worker's interpreter starts slowly, as on a busy machine."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SLOW_START.format(seconds=seconds))
    return {"PYTHONPATH": str(folder)}


@contextmanager
def starting(url: str, settings: dict[str, str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start two workers without waiting until they are ready."""
    with output.open("wb") as out:
        supervisor = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(free_port()), "--workers", "2"],
            env=os.environ | settings | {"FACTORY_LOGS_DATABASE_URL": url},
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        yield supervisor
    finally:
        processes.send([*workers(supervisor.pid), supervisor.pid], signal.SIGKILL)
        supervisor.wait(READY_SECONDS)


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_worker_that_starts_slowly_is_waited_for(migrated_url: str, tmp_path: Path) -> None:
    """Longer than uvicorn's limit of five seconds."""
    settings = {"FACTORY_LOGS_DATABASE_URL": migrated_url} | slow_start(tmp_path / "slow", 7)
    port, output = free_port(), tmp_path / "output"
    with serving(settings, port, output, workers=2, forks_workers=False):
        assert "is replaced" not in output.read_text()
        assert httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60).status_code == 200


def test_a_worker_that_does_not_start_in_time_is_replaced(migrated_url: str, tmp_path: Path) -> None:
    settings = {"FACTORY_LOGS_WORKER_START_SECONDS": "2", "FACTORY_LOGS_WORKER_HEALTH_SECONDS": "300"}
    with starting(migrated_url, settings | slow_start(tmp_path / "slow", 300), tmp_path / "output") as supervisor:
        wait_until(lambda: len(workers(supervisor.pid)) == 2)
        first = workers(supervisor.pid)
        wait_until(lambda: len(workers(supervisor.pid)) == 2 and not first & workers(supervisor.pid))
    assert "no sign of life for 2 s (FACTORY_LOGS_WORKER_START_SECONDS)" in (tmp_path / "output").read_text()


def test_a_worker_that_hangs_is_replaced(migrated_url: str, tmp_path: Path) -> None:
    """The supervisor keeps the other worker, even if the busy machine delays its heartbeat for some seconds."""
    settings = {"FACTORY_LOGS_DATABASE_URL": migrated_url, "FACTORY_LOGS_WORKER_HEALTH_SECONDS": "15"}
    port, output = free_port(), tmp_path / "output"
    with serving(settings, port, output, workers=2) as supervisor:
        first = workers(supervisor.pid)
        hanging = first.pop()
        os.kill(hanging, signal.SIGSTOP)
        wait_until(lambda: hanging not in workers(supervisor.pid) and len(workers(supervisor.pid)) == 2)
        assert "it gave no sign of life for 15 s (FACTORY_LOGS_WORKER_HEALTH_SECONDS)" in output.read_text()
        assert first < workers(supervisor.pid), "the other worker goes on"


def test_a_stop_works_while_a_worker_hangs(migrated_url: str, tmp_path: Path) -> None:
    settings = {"FACTORY_LOGS_DRAIN_SECONDS": "1", "FACTORY_LOGS_WORKER_HEALTH_SECONDS": "3"}
    with starting(migrated_url, settings | slow_start(tmp_path / "slow", 300), tmp_path / "output") as supervisor:
        wait_until(lambda: len(workers(supervisor.pid)) == 2)
        supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(READY_SECONDS) == 0


def test_a_worker_that_was_killed_is_replaced(migrated_url: str, tmp_path: Path) -> None:
    port, output = free_port(), tmp_path / "output"
    with serving({"FACTORY_LOGS_DATABASE_URL": migrated_url}, port, output, workers=2) as supervisor:
        killed = workers(supervisor.pid).pop()
        os.kill(killed, signal.SIGKILL)
        wait_until(lambda: killed not in workers(supervisor.pid) and len(workers(supervisor.pid)) == 2)
        assert "exit code -9" in output.read_text()

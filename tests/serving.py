"""The service as users run it: `factory-logs serve` in its own process, over HTTP."""

import http.client
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from factory_logs.cli.server.supervisor import STARTED
from tests import forked
from tests.faults import processes

PATIENT_SETTINGS = {
    f"FACTORY_LOGS_{name}_SECONDS": "30" for name in ("STALL", "POOL_TIMEOUT", "BATCH_WAIT", "CONNECT_TIMEOUT")
}
"""Long time limits, because a busy machine may exceed the defaults and respond with 503s. Tests of a limit set it."""
COMMAND = [sys.executable, "-m", "factory_logs"]
READY_SECONDS = 300
"""The maximum time of a start. It takes some seconds, but minutes on a machine that runs many tests."""

TRY_SECONDS = 5
"""The time limit of one attempt. A frozen worker may have accepted the connection, so another attempt follows."""

PORTS = range(12_000, 32_768)
"""Ports below those that Linux assigns to connections, so the ten thousand connections of another test use none."""


def free_port() -> int:
    """Return a free port; it is random, because other tests choose theirs at the same time."""
    while True:
        port = secrets.choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving(
    settings: Mapping[str, str], port: int, output: Path, *, workers: int = 1, forks_workers: bool = True
) -> Iterator[forked.Process]:
    """Start a service with these `FACTORY_LOGS_*` settings and wait for all workers; its output goes to `output`."""
    with output.open("wb") as out:
        options = ["--port", str(port), "--workers", str(workers)]
        process = forked.start(
            "factory_logs", ["serve", *options], os.environ | settings,
            stdout=out, stderr=out, forks_workers=forks_workers,
        )  # fmt: skip
    try:
        wait_until_healthy(port, process, output, workers)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(READY_SECONDS)


def workers(supervisor: int) -> set[int]:
    """Return the worker processes, including those that have not started yet."""
    return {
        pid
        for pid in processes.children(supervisor)
        if "multiprocessing-fork" in processes.command_line(pid) or processes.name(pid) == forked.WORKER_NAME
    }


def started_workers(output: Path) -> set[int]:
    """Return all workers that have begun to serve, from the log lines of their supervisor.

    A response shows only that one worker has started.
    """
    lines = output.read_text(errors="replace").splitlines()
    return {json.loads(line)["worker"] for line in lines if f'"{STARTED}"' in line}


def responds(port: int, path: str = "/healthz") -> int | None:
    """Return the status of the response, or None if the service does not respond.

    A client of httpx would cost the starting service more of the processors than the request.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TRY_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def wait_until_healthy(port: int, process: forked.Process, output: Path, number_of_workers: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, output.read_text()
        if responds(port) is not None and (number_of_workers == 1 or _have_started(process, output, number_of_workers)):
            return
        time.sleep(0.1)
    pytest.fail(f"not serving after {READY_SECONDS} s: {output.read_text()}")


def _have_started(supervisor: forked.Process, output: Path, number: int) -> bool:
    found = workers(supervisor.pid)
    return len(found) == number and found <= started_workers(output)

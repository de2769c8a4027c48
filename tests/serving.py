"""The service as its users meet it: `factory-logs serve` in a process of its own, asked over HTTP."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

COMMAND = [sys.executable, "-m", "factory_logs"]


PORTS = range(12_000, 32_768)
"""Below those that Linux gives to connections: ten thousand of another test cannot take one that was free just now."""


def free_port() -> int:
    """One that nobody listens on; a random one, as other tests choose theirs at the same time."""
    while True:
        port = secrets.choice(PORTS)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@contextmanager
def serving(
    settings: Mapping[str, str], port: int, output: Path, *, workers: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """A service with these `FACTORY_LOGS_*` settings; what it writes goes to `output`."""
    with output.open("wb") as out:
        process = subprocess.Popen(
            [*COMMAND, "serve", "--port", str(port), "--workers", str(workers)],
            env=os.environ | settings, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until_healthy(port, process, output)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def wait_until_healthy(port: int, process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, output.read_text()
        try:
            httpx.get(f"http://127.0.0.1:{port}/v1/factory_logs", timeout=5)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"not serving after 60 s: {output.read_text()}")

"""Connections that a worker cannot accept yet wait for it."""

import http.client
import resource
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.serving import PATIENT_SETTINGS, free_port, serving

pytestmark = pytest.mark.slow
WAITING = 7
STANDARD_FILES = 3
"""A process with this limit can open no more files."""
PATIENCE_SECONDS = 60


def status(connection: socket.socket) -> int:
    """Return the status of a request on this connection."""
    connection.settimeout(PATIENCE_SECONDS)
    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    response = http.client.HTTPResponse(connection)
    response.begin()
    return response.status


def test_as_many_connections_as_the_setting_wait_for_a_busy_worker(migrated_url: str, tmp_path: Path) -> None:
    port = free_port()
    settings = PATIENT_SETTINGS | {
        "FACTORY_LOGS_DATABASE_URL": migrated_url,
        "FACTORY_LOGS_MAX_UNACCEPTED_CONNECTIONS": str(WAITING),
    }
    with serving(settings, port, tmp_path / "log") as process, ExitStack() as stack:
        process.send_signal(signal.SIGSTOP)
        try:
            # Linux queues one connection more than the limit.
            waiting = [
                stack.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS))
                for _ in range(WAITING + 1)
            ]
            with pytest.raises(TimeoutError):
                socket.create_connection(("127.0.0.1", port), 0.5)
        finally:
            process.send_signal(signal.SIGCONT)
        assert [status(connection) for connection in waiting] == [200] * len(waiting)


def test_a_worker_without_free_file_descriptors_accepts_connections_later(migrated_url: str, tmp_path: Path) -> None:
    port = free_port()
    with serving(PATIENT_SETTINGS | {"FACTORY_LOGS_DATABASE_URL": migrated_url}, port, tmp_path / "log") as process:
        limits = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (STANDARD_FILES, limits[1]))
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as connection:
            connection.settimeout(0.5)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            with pytest.raises(TimeoutError):
                connection.recv(1)
            resource.prlimit(process.pid, resource.RLIMIT_NOFILE, limits)
            connection.settimeout(PATIENCE_SECONDS)
            assert connection.recv(12) == b"HTTP/1.1 200"
    assert "cannot accept a connection" in (tmp_path / "log").read_text()

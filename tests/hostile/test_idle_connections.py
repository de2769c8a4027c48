"""Ten thousand clients connect and then send nothing, all from one separate process."""

import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.faults import processes
from tests.hostile.conftest import Target, client_of
from tests.serving import free_port, serving

IDLE_CONNECTIONS = 10_000
SPARE_FILES = 500
"""The number of other files that a worker, or the process with the connections, may open."""
LOT = 1_000
"""The number of connections opened at once: fewer than the kernel queues for a worker that is not accepting yet."""
SPARE_CONNECTIONS = 5
BYTES_EACH = 20_000
ENDED_AT_ONCE = 200

# They have their own address and close without TIME_WAIT, so they use no ports on which other tests listen.
_HOLDER = """
import resource, socket, struct, sys
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
port, lot = map(int, sys.argv[1:])
held = []
while sys.stdin.readline() == "more\\n":
    for _ in range(lot):
        held.append(socket.create_connection(("127.0.0.1", port), 60, source_address=("127.0.0.2", 0)))
        held[-1].setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
silent = 0
for connection in held:
    connection.setblocking(False)
    try:
        connection.recv(1)
    except BlockingIOError:
        silent += 1
print(silent, flush=True)
"""


@contextmanager
def idle_callers(pid: int, port: int) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the connections. When its input ends, it prints how many connections are open and have
    received nothing."""
    arguments = [sys.executable, "-c", _HOLDER, str(port), str(LOT)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdin is not None
            for held in range(LOT, IDLE_CONNECTIONS + 1, LOT):
                holder.stdin.write("more\n")
                holder.stdin.flush()
                wait_until(lambda held=held: processes.connections(pid, port) == held)
            yield holder
        finally:
            holder.kill()


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
async def token(database: Database) -> str:
    user = await UserRepository(database).create("ann", "Ann", None, Level.SYSTEM)
    return await issue_token(database, user.user_id, expires_at=None)


@pytest.mark.slow
def test_ten_thousand_idle_connections_cost_little_and_do_not_block_others(
    migrated_url: str, token: str, tmp_path: Path
) -> None:
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < IDLE_CONNECTIONS + SPARE_FILES:
        pytest.skip("no process may have ten thousand files open here (ulimit -Hn)")
    port = free_port()
    settings = {
        "FACTORY_LOGS_DATABASE_URL": migrated_url,
        "FACTORY_LOGS_HEAD_SECONDS": "300",
        "FACTORY_LOGS_MAX_CONNECTIONS": str(IDLE_CONNECTIONS + SPARE_CONNECTIONS),
    }
    with serving(settings, port, tmp_path / "output") as service, client_of(port, token) as client:
        log = {"app_name": "tiger", "timestamp": "2024-01-31", "fields": {"passed": True}}
        assert client.post("/v1/factory_logs", json=log).status_code == 201  # the connections of a first write are open
        memory = processes.memory(service.pid)
        with idle_callers(service.pid, port) as holder:
            posted = client.post("/v1/factory_logs", json=log)
            assert posted.status_code == 201
            assert client.get(posted.headers["Location"]).json() == posted.json()
            assert processes.memory(service.pid) - memory < IDLE_CONNECTIONS * BYTES_EACH
            refuses_one_over_the_limit(service.pid, port)
            printed, _ = holder.communicate()
            assert int(printed) == IDLE_CONNECTIONS
        wait_until(lambda: processes.connections(service.pid, port) == 0)
        assert client.get("/healthz").status_code == 200


def refuses_one_over_the_limit(pid: int, port: int) -> None:
    with ExitStack() as others:
        wait_until(lambda: processes.connections(pid, port) == IDLE_CONNECTIONS)
        for _ in range(SPARE_CONNECTIONS):
            others.enter_context(socket.create_connection(("127.0.0.1", port), timeout=60))
        refused = httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=60)
        assert refused.status_code == 503
        assert refused.headers["Retry-After"] == "1"


def test_idle_connections_are_closed_in_time_and_leave_nothing_behind(target: Target) -> None:
    connections = [target.connect() for _ in range(ENDED_AT_ONCE)]
    for connection in connections:
        with connection:
            assert connection.recv(1) == b""
    wait_until(lambda: processes.connections(target.pid, target.port) == 0)


def test_a_connection_that_is_idle_after_its_response_is_closed(
    target: Target, everything_received: Callable[[socket.socket], bytes]
) -> None:
    with target.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert everything_received(connection).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("line_ends", [b"\r\n", b"\r\n\r\n"])
def test_line_ends_after_a_response_do_not_prolong_an_idle_connection(target: Target, line_ends: bytes) -> None:
    with target.connect() as connection:
        connection.settimeout(60)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(line_ends)
        assert connection.recv(1) == b""

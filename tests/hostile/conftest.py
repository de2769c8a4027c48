"""One worker in its own process, with short time limits, for hostile clients."""

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.faults import processes
from tests.serving import free_port, serving

LIMIT_SECONDS = 1
"""The time limits. A module whose clients must not reach them has its own `LIMIT_SECONDS`."""
MIB = 1024 * 1024
LIMITS = ("HEAD", "KEEP_ALIVE", "HALF_CLOSED", "BODY_IDLE", "LEFTOVER_BODY", "SEND")
GROWTH_BYTES = 300 * MIB
"""The maximum growth of one worker: its budget of bodies (128 MiB), and the objects decoded from them."""


def settings(seconds: int) -> dict[str, str]:
    return {f"FACTORY_LOGS_{name}_SECONDS": str(seconds) for name in LIMITS}


def client_of(port: int, token: str) -> httpx.Client:
    """Each request has a new connection, because the service may close an idle one just as it is used again."""
    headers = {"Authorization": f"Token token={token}"}
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60, limits=limits)


@dataclass(frozen=True, slots=True)
class Target:
    """The worker, and a token of level SYSTEM."""

    pid: int
    port: int
    token: str
    output: Path
    memory_at_first: int

    @property
    def memory(self) -> int:
        return processes.memory(self.pid)

    def client(self) -> httpx.Client:
        return client_of(self.port, self.token)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def check(self) -> None:
        """Check that the worker runs, has sent no 500, and uses bounded memory."""
        with self.client() as client:
            assert client.get("/v1/factory_logs").status_code == 200
        assert "unexpected error" not in self.output.read_text()
        assert self.memory - self.memory_at_first < GROWTH_BYTES


@pytest.fixture(scope="module")
def _port_and_process(
    request: pytest.FixtureRequest, migrated_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, int, Path]]:
    port, output = free_port(), tmp_path_factory.mktemp("hostile") / "output"
    limits = settings(getattr(request.module, "LIMIT_SECONDS", LIMIT_SECONDS))
    with serving({"FACTORY_LOGS_DATABASE_URL": migrated_url} | limits, port, output) as process:
        yield port, process.pid, output


@pytest.fixture
async def target(_port_and_process: tuple[int, int, Path], database: Database) -> AsyncIterator[Target]:
    port, pid, output = _port_and_process
    user = await UserRepository(database).create("mallory", "Mallory", None, Level.SYSTEM)
    target = Target(pid, port, await issue_token(database, user.user_id, expires_at=None), output, 0)
    with target.client() as client:
        client.get("/v1/factory_logs")
    target = Target(pid, port, target.token, output, target.memory)
    yield target
    target.check()


@pytest.fixture
def everything_received() -> Callable[[socket.socket], bytes]:
    """Return the bytes until the other side closes the connection."""

    def receive(connection: socket.socket) -> bytes:
        received = b""
        try:
            while data := connection.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received

    return receive

"""PostgreSQL ends connections repeatedly, so that each call meets this at every point."""

import asyncio
import threading
from collections.abc import Callable
from itertools import count

import httpx
import pytest

from tests.conftest import CITUS_URL
from tests.faults.site import Site

pytestmark = pytest.mark.faults

SECONDS = 3.0
EVERY_SECONDS = 0.02
LOGS = "/v1/factory_logs"
LOG = {"app_name": "terminated_test", "timestamp": "2024-01-31 13:45:00", "fields": {"passed": True}}
LINES = b'{"app_name":"terminated_test","timestamp":"2024-01-31"}\n' * 50
POINTS = b"terminated_test,jig_id=J-07 passed=true\n" * 20
LIKE = '{"filters":[{"name":"app_name","op":"like","val":"t%"}]}'
_END_OTHERS = """
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
WHERE pid <> pg_backend_pid() AND datname = current_database() AND backend_type NOT LIKE 'Citus%'
"""
_END_OTHERS_ON_WORKER_NODES = f"SELECT * FROM run_command_on_workers($${_END_OTHERS}$$)"

Call = Callable[[httpx.Client, str], httpx.Response]


def key(name: str) -> dict[str, str]:
    return {"Idempotency-Key": name}


def follow(client: httpx.Client, name: str) -> httpx.Response:
    """Read new logs for a short time, because the stream does not end."""
    with client.stream("GET", f"{LOGS}/tail") as response:
        if response.status_code == 200:
            next(response.iter_raw(), b"")
        else:
            response.read()
        return response


CALLS: dict[str, Call] = {
    "single": lambda client, name: client.post(LOGS, json=LOG),
    "keyed single": lambda client, name: client.post(LOGS, json=LOG, headers=key(name)),
    "batch": lambda client, name: client.post(LOGS, json=[LOG] * 20),
    "keyed batch": lambda client, name: client.post(LOGS, json=[LOG] * 20, headers=key(name)),
    "lines": lambda client, name: client.post(
        LOGS, content=LINES, headers={"Content-Type": "application/x-ndjson"} | key(name)
    ),
    "points": lambda client, name: client.post("/api/v2/write?bucket=b", content=POINTS),
    "by id": lambda client, name: client.get(f"{LOGS}/1"),
    "page": lambda client, name: client.get(LOGS, params={"q": LIKE}),
    "page by cursor": lambda client, name: client.get(LOGS, params={"cursor": ""}),
    "stats": lambda client, name: client.get(f"{LOGS}/stats", params={"bucket": "1h", "by": "app_name"}),
    "export": lambda client, name: client.get(LOGS, headers={"Accept": "application/x-ndjson"}),
    "tail": follow,
    "repair": lambda client, name: client.post("/v1/repairs", json={"product_imei": "123456789012345"}),
    "repairs": lambda client, name: client.get("/v1/repairs"),
    "login": lambda client, name: client.post("/v1/auth/login", json={"username": "jig", "password": "open secret"}),
    "user": lambda client, name: client.get("/v1/auth/validate_user", params={"username": "jig"}),
    "ready": lambda client, name: client.get("/readyz"),
}  # fmt: skip


BROKEN_OFF = {"export", "tail"}
"""Streams that may end before their end."""


class Caller(threading.Thread):
    """Repeats one call until a test ends it, and then until it succeeds.

    `surprises` are responses that no fault explains.
    """

    def __init__(self, site: Site, name: str, call: Call) -> None:
        super().__init__(name=name, daemon=True)
        self._site = site
        self._call = call
        self.ending = threading.Event()
        self.surprises: list[str] = []

    def run(self) -> None:
        with self._site.client() as client:
            for number in count():
                ending = self.ending.is_set()
                status = self._status(client, f"{self.name} {number}")
                if ending and status < 300:
                    return

    def _status(self, client: httpx.Client, name: str) -> int:
        try:
            response = self._call(client, name)
        except (httpx.RemoteProtocolError, httpx.ReadError):  # the latter if the service has not read all that was sent
            if self.name not in BROKEN_OFF:
                self.surprises.append(f"{self.name}: the connection was ended")
            return 503
        if not response.is_success and response.status_code != 503:
            self.surprises.append(f"{self.name}: {response.status_code} {response.text[:300]}")
        return response.status_code


async def test_every_call_succeeds_or_gets_a_503_while_the_database_ends_connections(site: Site) -> None:
    with site.client() as client:
        assert client.post(LOGS, json=[LOG] * 2000).status_code == 201
    callers = [Caller(site, name, call) for name, call in CALLS.items()]
    for caller in callers:
        caller.start()
    statements = [_END_OTHERS] if CITUS_URL is None else [_END_OTHERS, _END_OTHERS_ON_WORKER_NODES]
    try:
        async with site.cluster.connected() as connection, asyncio.timeout(60):
            for _ in range(round(SECONDS / EVERY_SECONDS)):
                for statement in statements:
                    await connection.execute(statement)
                await asyncio.sleep(EVERY_SECONDS)
    finally:
        # End the tail first, while the others still write logs.
        for caller in sorted(callers, key=lambda caller: caller.name != "tail"):
            caller.ending.set()
            await asyncio.to_thread(caller.join, 60)
    surprises = [surprise for caller in callers for surprise in caller.surprises]
    assert surprises == [], site.service.errors()
    assert [caller.name for caller in callers if caller.is_alive()] == [], "these never succeeded again"

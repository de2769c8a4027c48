"""PostgreSQL commits, and the response is lost: the worker is killed, or the connection is cut
(docs/reference/http-api.md#writing)."""

import itertools
import signal
import threading
import time
from collections.abc import Awaitable, Callable

import asyncpg
import httpx
import pytest

from tests.conftest import CITUS_URL
from tests.faults import processes
from tests.faults.site import Site

pytestmark = pytest.mark.faults

LOG = {"app_name": "lost_response", "timestamp": "2024-01-31 13:45:00"}
# One PostgreSQL stores a single log by one statement, and a cluster by a transaction.
SINGLE_AND_BATCH = pytest.mark.parametrize(
    ("body", "last_response"),
    [(LOG, b"" if CITUS_URL is None else b"COMMIT\0"), ([LOG, LOG, LOG], b"COMMIT\0")],
    ids=["single", "batch"],
)
_numbers = itertools.count()


class Sent:
    """One POST in a separate thread, on a connection that a worker has already served."""

    def __init__(self, site: Site, body: object) -> None:
        self.key = f"lost-{next(_numbers)}"
        self.outcome: httpx.Response | httpx.TransportError | None = None
        self._client = site.client()
        self._body = body
        # With a key too, so that the worker prepares that statement now and caches the token.
        warm = self._warm()
        while warm.status_code == 503:  # from the previous test
            warm = self._warm()
        assert warm.status_code == 201, warm.text
        port = warm.extensions["network_stream"].get_extra_info("client_addr")[1]
        self.worker = processes.holder(site.service.workers(), port)
        self._thread = threading.Thread(target=self._send)

    def _warm(self) -> httpx.Response:
        return self._client.post("/v1/factory_logs", json=self._body, headers={"Idempotency-Key": f"{self.key}-warm"})

    def start(self) -> None:
        self._thread.start()

    def _send(self) -> None:
        try:
            self.outcome = self._post(self._client)
        except httpx.TransportError as error:
            self.outcome = error

    def _post(self, client: httpx.Client) -> httpx.Response:
        return client.post("/v1/factory_logs", json=self._body, headers={"Idempotency-Key": self.key})

    def wait(self) -> httpx.Response | httpx.TransportError | None:
        self._thread.join(60)
        self._client.close()
        return self.outcome

    def again(self, site: Site) -> httpx.Response:
        with site.client() as client:
            return self._post(client)


async def until(what: str, happens: Callable[[], Awaitable[object]]) -> None:
    deadline = time.monotonic() + 60
    while not await happens():
        assert time.monotonic() < deadline, f"not after 60 s: {what}"


async def commit_unheard(site: Site, database: asyncpg.Connection, sent: Sent, last_response: bytes) -> None:
    """Send it, and wait until PostgreSQL has committed it; the worker receives no response."""
    site.link.hold_responses(last_response, to=sent.key.encode())
    sent.start()
    committed = "SELECT true FROM idempotency_keys WHERE key = $1"
    await until(f"{sent.key} is committed", lambda: database.fetchval(committed, sent.key))
    assert sent.outcome is None


async def count(database: asyncpg.Connection) -> int:
    number: int = await database.fetchval("SELECT count(*) FROM factory_logs")
    return number


@SINGLE_AND_BATCH
async def test_a_write_is_stored_once_if_its_worker_is_killed_between_commit_and_response(
    site: Site, past_the_link: asyncpg.Connection, body: object, last_response: bytes
) -> None:
    sent = Sent(site, body)
    before = await count(past_the_link)
    await commit_unheard(site, past_the_link, sent, last_response)
    processes.send([sent.worker], signal.SIGKILL)
    site.link.pass_responses()
    assert isinstance(sent.wait(), httpx.TransportError)
    again = sent.again(site)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert await count(past_the_link) == before + (len(body) if isinstance(body, list) else 1)


@SINGLE_AND_BATCH
async def test_a_connection_cut_between_commit_and_response_gets_a_503_and_not_retried_by_the_service(
    site: Site, past_the_link: asyncpg.Connection, body: object, last_response: bytes
) -> None:
    sent = Sent(site, body)
    before = await count(past_the_link)
    await commit_unheard(site, past_the_link, sent, last_response)
    site.link.cut()
    site.link.pass_responses()
    outcome = sent.wait()
    assert isinstance(outcome, httpx.Response)
    assert (outcome.status_code, "retry-after" in outcome.headers) == (503, True), outcome.text
    stored = before + (len(body) if isinstance(body, list) else 1)
    assert await count(past_the_link) == stored
    again = sent.again(site)
    assert (again.status_code, again.headers["idempotency-replayed"]) == (201, "true")
    assert await count(past_the_link) == stored


@SINGLE_AND_BATCH
async def test_fifty_tries_at_once_on_two_worker_processes_store_once(
    site: Site, past_the_link: asyncpg.Connection, body: object, last_response: bytes
) -> None:
    tries = [Sent(site, body) for _ in range(50)]
    deadline = time.monotonic() + 60
    while len({one.worker for one in tries}) < 2:  # the kernel may prefer one of them for a long time
        assert time.monotonic() < deadline, "all connections went to one worker"
        tries.append(Sent(site, body))
    before = await count(past_the_link)
    for one in tries:
        one.key = tries[0].key
        one.start()
    responses = [one.wait() for one in tries]
    unstored = [response for response in responses if getattr(response, "status_code", None) != 201]
    assert unstored == []
    assert len({response.content for response in responses}) == 1
    assert sum("idempotency-replayed" not in response.headers for response in responses) == 1
    assert await count(past_the_link) == before + (len(body) if isinstance(body, list) else 1)

"""Tokens where two processes check them: ended everywhere within 5 seconds, kept alive by use under load (SPEC 3)."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from tests.faults import processes
from tests.faults.site import Site
from tests.faults.writers import Ledger

pytestmark = pytest.mark.faults

REVOKED_WITHIN_SECONDS = 5.0
IDLE_SECONDS = 6


@contextmanager
def one_connection_to_each_worker(site: Site, token: str) -> Iterator[list[httpx.Client]]:
    headers = {"Authorization": f"Token token={token}"}
    with ExitStack() as opened:
        by_worker: dict[int, httpx.Client] = {}
        while len(by_worker) < 2:
            client = opened.enter_context(httpx.Client(base_url=site.service.url, headers=headers, timeout=30))
            answer = client.get("/v1/factory_logs/1")
            port = answer.extensions["network_stream"].get_extra_info("client_addr")[1]
            by_worker.setdefault(processes.holder(site.service.workers(), port), client)
        yield list(by_worker.values())


def is_let_in(client: httpx.Client) -> bool:
    answer = client.get("/v1/factory_logs/0")
    assert answer.status_code in (404, 401), answer.text
    return answer.status_code == 404


def test_a_revoked_token_stops_working_on_every_worker_within_five_seconds(site: Site) -> None:
    token = site.service.run("tokens", "issue", "jig", "--expires-in", "never")
    with one_connection_to_each_worker(site, token) as clients:
        assert all(is_let_in(client) for client in clients)
        site.service.run("tokens", "revoke", token)
        revoked = time.monotonic()
        last_let_in = 0.0
        # Used all the time: what keeps a token alive must not keep a revoked one alive.
        while (began := time.monotonic()) < revoked + REVOKED_WITHIN_SECONDS + 1:
            let_in = [is_let_in(client) for client in clients]
            if any(let_in):
                last_let_in = began - revoked
        assert last_let_in < REVOKED_WITHIN_SECONDS
        assert not any(is_let_in(client) for client in clients)


def test_a_sliding_token_lives_while_it_is_used_under_load_and_ends_when_it_is_not(site: Site) -> None:
    token = site.service.run(
        "tokens", "issue", "jig", environment={"FACTORY_LOGS_SESSION_IDLE_SECONDS": str(IDLE_SECONDS)}
    )
    with one_connection_to_each_worker(site, token) as clients, site.writers("sliding", Ledger()):
        end = time.monotonic() + IDLE_SECONDS * 1.5
        while time.monotonic() < end:
            assert all(is_let_in(client) for client in clients)
    # Nobody looks meanwhile, or that would be a use; its last one is written back within a quarter of its life.
    time.sleep(IDLE_SECONDS * 1.25 + 1)
    with httpx.Client(base_url=site.service.url, headers={"Authorization": f"Token token={token}"}) as client:
        assert not is_let_in(client)

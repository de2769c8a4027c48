"""Tokens and logins on two workers (docs/reference/http-api.md#authentication).

Tokens end on every worker within 5 seconds, use under load keeps them valid, and failed logins are counted together.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from factory_logs.settings import Settings
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
            client = opened.enter_context(httpx.Client(base_url=site.service.url, headers=headers, timeout=60))
            response = client.get("/v1/factory_logs/1")
            port = response.extensions["network_stream"].get_extra_info("client_addr")[1]
            by_worker.setdefault(processes.holder(site.service.workers(), port), client)
        yield list(by_worker.values())


def is_let_in(client: httpx.Client) -> bool:
    response = client.get("/v1/factory_logs/0")
    assert response.status_code in (404, 401), response.text
    return response.status_code == 404


@pytest.mark.parametrize("ended_by", [("tokens", "revoke", "-"), ("users", "disable", "{}"), ("users", "delete", "{}")])
def test_a_revoked_token_stops_working_on_every_worker_within_five_seconds(
    site: Site, ended_by: tuple[str, ...]
) -> None:
    user = f"to-{ended_by[1]}"
    site.service.create_user(user, "SYSTEM")
    token = site.service.run("tokens", "issue", user, "--expires-in", "never")
    with one_connection_to_each_worker(site, token) as clients:
        assert all(is_let_in(client) for client in clients)
        site.service.run(*(part.format(user) for part in ended_by), stdin=f"{token}\n")
        revoked = time.monotonic()
        last_let_in = 0.0
        # The token is used all the time: use must not keep a revoked token valid.
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
    # No request checks it meanwhile, because that would be a use; the last use is stored within a quarter of its
    # lifetime.
    time.sleep(IDLE_SECONDS * 1.25 + 1)
    with httpx.Client(
        base_url=site.service.url, headers={"Authorization": f"Token token={token}"}, timeout=60
    ) as client:
        assert not is_let_in(client)


def test_password_guesses_at_both_workers_at_once_share_one_limit(site: Site) -> None:
    limit = Settings().login_max_failures
    body = {"username": "guessed at", "password": "guess"}
    with one_connection_to_each_worker(site, site.token) as clients, ThreadPoolExecutor(4 * limit) as threads:
        # Concurrent calls of a client use new connections, which any worker may accept.
        calls = [threads.submit(clients[number % 2].post, "/v1/auth/login", json=body) for number in range(4 * limit)]
        responses = Counter(call.result().status_code for call in calls)
        assert responses == {401: limit, 429: 3 * limit}
        refused = [client.post("/v1/auth/login", json=body) for client in clients]
        assert [response.status_code for response in refused] == [429, 429]
        assert all(int(response.headers["Retry-After"]) > 0 for response in refused)

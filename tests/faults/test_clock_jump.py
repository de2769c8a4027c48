"""The wall clock of the service and of PostgreSQL jumps forward and back by hours under load."""

import hashlib
import itertools
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime

import asyncpg
import httpx
import pytest

from tests.faults.clock import WallClock
from tests.faults.conftest import OWN_SERVER
from tests.faults.site import Site
from tests.faults.writers import Ledger

pytestmark = [pytest.mark.faults, OWN_SERVER]

LOGS = "/v1/factory_logs"
LOG = {"app_name": "clock_test", "timestamp": "2024-01-31 13:45:00"}
JUMPS = (2, -2, 0)
SLIDING_HOURS = 3
_numbers = itertools.count()
_ISSUE_SLIDING = """
INSERT INTO tokens (token_hash, user_id, idle_seconds, expires_at)
SELECT $1, user_id, $2::int, (now() AT TIME ZONE 'utc') + make_interval(secs => $2::int)
FROM users WHERE username = 'jig'
"""


@pytest.fixture
def clock(site: Site) -> WallClock:
    if site.clock is None:
        pytest.skip("this system has no C compiler")
    return site.clock


def retried(ask: Callable[[], httpx.Response]) -> httpx.Response:
    """Retry until PostgreSQL allows the request; a request that the jump interrupts is a 503."""
    deadline = time.monotonic() + 60
    while (response := ask()).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.05)
    return response


def stored(client: httpx.Client, key: str) -> httpx.Response:
    return retried(lambda: client.post(LOGS, json=LOG, headers={"Idempotency-Key": key}))


def read_with(client: httpx.Client, token: str) -> int:
    return retried(lambda: client.get(LOGS, headers={"Authorization": f"Token token={token}"})).status_code


async def issue_sliding(connection: asyncpg.Connection) -> str:
    """Return a token that ends SLIDING_HOURS after its last use, and that no worker has cached."""
    token = f"{next(_numbers):064d}"
    await connection.execute(_ISSUE_SLIDING, hashlib.sha256(token.encode()).digest(), SLIDING_HOURS * 3600)
    return token


def served_hours(client: httpx.Client) -> int:
    """Return how many hours the service's clock differs from the test's."""
    served = parsedate_to_datetime(client.get("/healthz").headers["date"])
    return round((served.timestamp() - time.time()) / 3600)


async def stored_hours(connection: asyncpg.Connection) -> int:
    """Return how many hours PostgreSQL's clock differs from the test's."""
    return round((float(await connection.fetchval("SELECT extract(epoch FROM now())")) - time.time()) / 3600)


async def test_logs_acknowledged_around_a_clock_jump_are_stored_once_and_replayed(
    site: Site, clock: WallClock, past_the_link: asyncpg.Connection
) -> None:
    ledger = Ledger()
    first: dict[str, object] = {}
    with site.client() as client, site.writers("clock", ledger) as writers:
        writers.wait_for_acknowledgement()
        for hours in JUMPS:
            key = f"before {hours}"
            first[key] = stored(client, key).json()
            clock.jump_to(hours)
            writers.wait_for_acknowledgement()
            for used, body in first.items():
                again = stored(client, used)
                assert (again.status_code, again.headers.get("idempotency-replayed")) == (201, "true"), again.text
                assert again.json() == body
            assert await stored_hours(past_the_link) == hours
            deadline = time.monotonic() + 60
            while served_hours(client) != hours:  # the header is updated once a second
                assert time.monotonic() < deadline, "the service's clock has not jumped"
    site.service.wait_until_ready()
    assert ledger.surprises == [], site.service.errors()
    (await site.judge(ledger)).check()


async def test_a_token_ends_by_the_clock_and_one_without_end_does_not(
    site: Site, clock: WallClock, past_the_link: asyncpg.Connection
) -> None:
    within, beyond = [await issue_sliding(past_the_link) for _ in range(2)]
    with site.client() as client:
        clock.jump_to(SLIDING_HOURS - 1)
        assert (read_with(client, within), read_with(client, site.token)) == (200, 200)
        clock.jump_to(SLIDING_HOURS + 1)
        assert (read_with(client, beyond), read_with(client, site.token)) == (401, 200)

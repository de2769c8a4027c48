"""PostgreSQL is frozen during requests: new ones are refused fast, memory stays bounded, and the service recovers
(docs/reference/http-api.md#writing)."""

import signal
import threading
import time

import httpx
import pytest

from tests.faults import processes
from tests.faults.processes import MIB
from tests.faults.site import Site
from tests.faults.writers import Ledger

pytestmark = pytest.mark.faults

LOG = {"app_name": "stalled", "timestamp": "2024-01-31 13:45:00"}
BIG = LOG | {"fields": {"text": "x" * 200_000}}
FLOODERS = 40
LIMITS_BYTES = (64 + 128) * MIB
"""The limits of one worker for waiting logs and bodies: the defaults of max_queued_bytes and max_bodies_bytes."""
SLACK_BYTES = 100 * MIB


def refused(response: httpx.Response) -> bool:
    return response.status_code == 503 and "retry-after" in response.headers


def is_refused(client: httpx.Client, method: str, path: str, **options: object) -> bool:
    return refused(client.request(method, path, **options))  # type: ignore[arg-type]


async def test_a_stopped_postgresql_gets_a_503_at_once_and_the_service_recovers(site: Site) -> None:
    ledger = Ledger()
    calls = [
        ("POST", "/v1/factory_logs", {"json": LOG}),
        ("POST", "/v1/factory_logs", {"json": [LOG, LOG]}),
        ("POST", "/v1/repairs", {"json": {"product_imei": "352099001761481"}}),
        ("GET", "/v1/factory_logs", {}),
        ("GET", "/v1/factory_logs/1", {}),
        ("GET", "/readyz", {}),
        ("POST", "/v1/auth/login", {"json": {"username": "jig", "password": "open secret"}}),
    ]
    with site.client() as client, site.writers("stalled", ledger) as writers:
        writers.wait_for_acknowledgement()
        paused = site.cluster.pause()
        try:
            # Requests in progress wait for the heartbeat, not for a time-out of PostgreSQL.
            for method, path, options in calls:
                assert refused(client.request(method, path, **options)), path  # type: ignore[arg-type]
            # A hundred calls that each wait would take minutes.
            began = time.monotonic()
            for _ in range(100):
                for method, path, options in calls:
                    assert refused(client.request(method, path, **options)), path  # type: ignore[arg-type]
            assert time.monotonic() - began < 300
            assert client.get("/healthz").status_code == 200
        finally:
            processes.send(paused, signal.SIGCONT)
        writers.wait_for_acknowledgement()
        site.service.wait_until_ready()
        assert client.get("/v1/factory_logs").status_code == 200
    assert ledger.surprises == []
    (await site.judge(ledger)).check()


async def test_the_memory_of_a_worker_is_limited_while_large_logs_arrive_for_a_stopped_postgresql(site: Site) -> None:
    before = site.service.memory()
    most = before
    codes: set[int] = set()
    ending = threading.Event()

    def flood() -> None:
        with site.client() as client:
            while not ending.is_set():
                codes.add(client.post("/v1/factory_logs", json=BIG).status_code)

    flooders = [threading.Thread(target=flood) for _ in range(FLOODERS)]
    paused = site.cluster.pause()
    try:
        for flooder in flooders:
            flooder.start()
        end = time.monotonic() + 5
        while time.monotonic() < end:
            most = max(most, site.service.memory())
            time.sleep(0.05)
    finally:
        processes.send(paused, signal.SIGCONT)
        ending.set()
        for flooder in flooders:
            flooder.join(60)
    assert 503 in codes
    assert codes <= {201, 503}
    assert most - before < LIMITS_BYTES + SLACK_BYTES
    site.service.wait_until_ready()


async def test_sigterm_stores_the_accepted_logs(site: Site) -> None:
    """Under load, every acknowledged log is stored, every response is a 201 or 503, and the service recovers."""
    ledger = Ledger()
    with site.writers("drained", ledger) as writers:
        writers.wait_for_acknowledgement()
        assert site.service.stop() == 0, site.service.tail()
        site.service.start()
        writers.wait_for_acknowledgement()
    site.service.wait_until_ready()
    assert ledger.surprises == []
    (await site.judge(ledger)).check()

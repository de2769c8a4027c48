"""The simulated devices write to a real service over a link that loses and refuses requests."""

import threading
import time
from collections.abc import Callable

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.load.devices import DeviceGroup, Load, LoadError, count_stored
from factory_logs.load.statistics import LoadCounts
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.client.servers import Server

END_SECONDS = 120.0


class Link:
    """A link of all devices to a service. `before` may respond in its place and `after` may lose its response, by the
    number of the request."""

    def __init__(
        self,
        before: Callable[[int], httpx.Response | None] = lambda number: None,
        after: Callable[[int], None] = lambda number: None,
    ) -> None:
        self.before, self.after = before, after
        self.times: list[float] = []
        self._lock = threading.Lock()

    def transport(self) -> httpx.BaseTransport:
        """Return the transport of one device."""
        return _Transport(self)

    def number(self) -> int:
        """Return the number of a new request."""
        with self._lock:
            self.times.append(time.monotonic())
            return len(self.times) - 1


class _Transport(httpx.BaseTransport):
    def __init__(self, link: Link) -> None:
        self._link = link
        self._real = httpx.HTTPTransport(limits=httpx.Limits(max_connections=1))

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        number = self._link.number()
        instead = self._link.before(number)
        if instead is not None:
            return instead
        response = self._real.handle_request(request)
        response.read()
        response.close()
        self._link.after(number)
        return response

    def close(self) -> None:
        self._real.close()


def a_load(
    url: str, token: str, *, devices: int = 3, batch: int = 1, duration: float = 0.5, grace: float = 60.0
) -> Load:
    return Load(url, token, devices, batch, duration, grace)


def run(load: Load, link: Link) -> LoadCounts:
    group = DeviceGroup(load, range(load.devices), link.transport)
    group.start()
    assert group.wait(END_SECONDS)
    return group.counts()


@pytest.mark.parametrize("batch", [1, 20])
def test_every_log_gets_a_201_and_is_stored(shared_server: Server, token: str, batch: int) -> None:
    load = a_load(shared_server.url, token, batch=batch)
    group = DeviceGroup(load, range(load.devices))
    group.start()
    assert group.wait(END_SECONDS)
    counts = group.counts()
    with load.client() as http:
        assert counts.stored == count_stored(load, http) > 0
        assert count_stored(a_load(shared_server.url, token), http) == 0
    assert counts.latencies.count * batch == counts.stored
    assert counts.requests == counts.latencies.count
    assert (counts.refused, counts.in_doubt, counts.failures.total(), counts.retry_seconds) == (0, 0, 0, 0)
    assert counts.request_seconds > 0
    assert counts.processor_seconds > 0


@pytest.mark.parametrize("batch", [1, 20])
def test_a_write_whose_response_is_lost_is_retried_and_stored_once(
    shared_server: Server, token: str, batch: int
) -> None:
    def lose(number: int) -> None:
        if number % 3 == 0:
            raise httpx.ReadError("lost")

    load = a_load(shared_server.url, token, batch=batch)
    counts = run(load, Link(after=lose))
    with load.client() as http:
        assert counts.stored == count_stored(load, http)
    assert 0 < counts.replayed <= counts.failures["ReadError"] * batch
    assert counts.in_doubt == 0
    assert counts.retry_seconds > 0


def test_retry_after_is_honoured(shared_server: Server, token: str) -> None:
    def refuse_first(number: int) -> httpx.Response | None:
        return httpx.Response(503, headers={"Retry-After": "1"}) if number == 0 else None

    link = Link(before=refuse_first)
    counts = run(a_load(shared_server.url, token, devices=1, duration=0.01), link)
    assert link.times[1] - link.times[0] >= 1
    assert (counts.stored, counts.failures) == (1, {"HTTP 503": 1})
    assert counts.retry_seconds >= 1


def test_a_write_that_stays_without_a_response_is_in_doubt() -> None:
    link = Link(before=lambda number: httpx.Response(502))
    counts = run(a_load("http://logs.test", "t", devices=2, batch=5, duration=0.01, grace=0.2), link)
    assert (counts.stored, counts.in_doubt) == (0, 10)


def test_a_write_that_is_refused_is_not_retried() -> None:
    link = Link(before=lambda number: httpx.Response(413))
    counts = run(a_load("http://logs.test", "t", devices=1, duration=0.05), link)
    assert counts.refused == counts.failures["HTTP 413"] == len(link.times) > 0


@pytest.mark.parametrize(("level", "reason"), [(None, "refuses the token"), (Level.OVERVIEW, "may not write")])
async def test_a_token_that_may_not_write_ends_all_devices(
    shared_server: Server, database: Database, password_hash: str, level: Level | None, reason: str
) -> None:
    token = "x" * 64
    if level is not None:
        user = await UserRepository(database).create("ann", "Ann", password_hash, level)
        token = await issue_token(database, user.user_id, expires_at=None)
    load = a_load(shared_server.url, token, duration=600)
    group = DeviceGroup(load, range(load.devices))
    group.start()
    with pytest.raises(LoadError, match=reason):
        group.wait(END_SECONDS)


def test_devices_that_are_stopped_end_after_their_request(shared_server: Server, token: str) -> None:
    load = a_load(shared_server.url, token, duration=600)
    group = DeviceGroup(load, range(load.devices))
    group.start()
    assert not group.wait(0.1)
    group.stop()
    assert group.wait(END_SECONDS)
    with load.client() as http:
        assert group.counts().stored == count_stored(load, http)


def test_each_device_has_one_connection_of_its_own(shared_server: Server, token: str) -> None:
    load = a_load(shared_server.url, token, devices=4)
    made: list[httpx.BaseTransport] = []
    make = load.transports()

    def transport() -> httpx.BaseTransport:
        made.append(make())
        return made[-1]

    group = DeviceGroup(load, range(4), transport)
    group.start()
    assert group.wait(END_SECONDS)
    assert len(made) == 4
    assert group.counts().requests > 4

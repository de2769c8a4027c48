"""The simulated devices against the service, over a link that loses and refuses."""

import time
from collections.abc import Callable

import httpx
import pytest

from factory_logs.load.devices import Load, LoadError, count_stored, run_load
from factory_logs.load.tally import Tally
from factory_logs.security.levels import Level


class Link(httpx.AsyncBaseTransport):
    """The way to the app; `spoil` may answer in its place, before or after it, by the number of the request."""

    def __init__(self, app, before: Callable[[int], httpx.Response | None], after: Callable[[int], None]) -> None:
        self._way = httpx.ASGITransport(app)
        self._before, self._after = before, after
        self.times: list[float] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        number = len(self.times)
        self.times.append(time.monotonic())
        instead = self._before(number)
        if instead is not None:
            return instead
        answer = await self._way.handle_async_request(request)
        self._after(number)
        return answer


def link(app, before=lambda number: None, after=lambda number: None) -> Link:
    return Link(app, before, after)


def client(token: str, way: Link) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=way, base_url="http://logs.test/", headers={"Authorization": f"Token token={token}"}
    )


def a_load(devices: int = 3, batch: int = 1, duration: float = 0.3, grace: float = 30.0) -> Load:
    return Load("http://logs.test", "unused", devices, batch, duration, grace)


@pytest.mark.parametrize("batch", [1, 20])
async def test_every_log_is_answered_and_stored(app, tokens, batch: int) -> None:
    load, tally = a_load(batch=batch), Tally()
    async with client(tokens[Level.SYSTEM], link(app)) as http:
        await run_load(load, http, tally)
        assert tally.stored == await count_stored(load, http) > 0
        assert await count_stored(a_load(), http) == 0
    assert tally.latencies.count * batch == tally.stored
    assert (tally.refused, tally.in_doubt, sum(tally.failures.values())) == (0, 0, 0)


@pytest.mark.parametrize("batch", [1, 20])
async def test_a_write_whose_answer_is_lost_is_tried_again_and_stored_once(app, tokens, batch: int) -> None:
    def lose(number: int) -> None:
        if number % 3 == 0:
            raise httpx.ReadError("lost")

    load, tally = a_load(batch=batch), Tally()
    async with client(tokens[Level.SYSTEM], link(app, after=lose)) as http:
        await run_load(load, http, tally)
    async with client(tokens[Level.SYSTEM], link(app)) as http:
        assert tally.stored == await count_stored(load, http)
    assert 0 < tally.replayed <= tally.failures["ReadError"] * batch
    assert tally.in_doubt == 0


async def test_retry_after_is_honoured(app, tokens) -> None:
    def refuse_first(number: int) -> httpx.Response | None:
        return httpx.Response(503, headers={"Retry-After": "1"}) if number == 0 else None

    way, tally = link(app, before=refuse_first), Tally()
    async with client(tokens[Level.SYSTEM], way) as http:
        await run_load(a_load(devices=1, duration=0.01), http, tally)
    assert way.times[1] - way.times[0] >= 1
    assert (tally.stored, tally.failures) == (1, {"HTTP 503": 1})


async def test_a_write_that_stays_without_an_answer_is_in_doubt(app, tokens) -> None:
    way, tally = link(app, before=lambda number: httpx.Response(502)), Tally()
    async with client(tokens[Level.SYSTEM], way) as http:
        await run_load(a_load(devices=2, batch=5, duration=0.01, grace=0.2), http, tally)
    assert (tally.stored, tally.in_doubt) == (0, 10)


async def test_a_write_that_is_refused_is_not_tried_again(app, tokens) -> None:
    way, tally = link(app, before=lambda number: httpx.Response(413)), Tally()
    async with client(tokens[Level.SYSTEM], way) as http:
        await run_load(a_load(devices=1, duration=0.05), http, tally)
    assert tally.refused == tally.failures["HTTP 413"] == len(way.times) > 0


@pytest.mark.parametrize(("level", "reason"), [(None, "refuses the token"), (Level.OVERVIEW, "may not write")])
async def test_a_token_that_will_not_do_ends_it(app, tokens, level: Level | None, reason: str) -> None:
    async with client(tokens[level] if level else "x" * 64, link(app)) as http:
        with pytest.raises(LoadError, match=reason):
            await run_load(a_load(duration=60), http, Tally())

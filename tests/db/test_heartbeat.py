"""The heartbeat notices a server that went silent, and one that is back."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from factory_logs.db.heartbeat import Heartbeat

NAME = {"application_name": "heartbeat under test"}


class Line:
    """Connects to PostgreSQL until it is cut; `fault` is what connecting gives then."""

    def __init__(self, url: str) -> None:
        self.silences = 0
        self._fault: Exception | None = None
        self.opened: list[asyncpg.Connection] = []
        self.url = url

    async def connect(self) -> asyncpg.Connection:
        if self._fault is not None:
            raise self._fault
        self.opened.append(await asyncpg.connect(self.url, server_settings=NAME))
        return self.opened[-1]

    def cut(self, fault: Exception | None) -> None:
        self._fault = fault
        for connection in self.opened:
            connection.terminate()

    def mend(self) -> None:
        self._fault = None

    def silent(self) -> None:
        self.silences += 1


@pytest.fixture
def line(postgres_url: str) -> Line:
    return Line(postgres_url)


@pytest.fixture
async def heartbeat(line: Line) -> AsyncIterator[Heartbeat]:
    heartbeat = Heartbeat(line.connect, 5.0, line.silent)
    running = asyncio.create_task(heartbeat.run())
    await until(lambda: line.opened)
    yield heartbeat
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    line.cut(None)


async def until(happened: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not happened():
            await asyncio.sleep(0.01)


async def test_before_the_first_beat_the_server_counts_as_there(line: Line) -> None:
    assert Heartbeat(line.connect, 1.0, line.silent).answers


async def test_a_server_that_is_away_is_noticed_once_and_so_is_its_return(line: Line, heartbeat: Heartbeat) -> None:
    line.cut(ConnectionRefusedError())
    await until(lambda: not heartbeat.answers)
    await asyncio.sleep(0.5)
    assert line.silences == 1
    line.mend()
    await until(lambda: heartbeat.answers)


async def test_it_goes_on_after_an_error_that_nobody_foresaw(line: Line) -> None:
    def fails() -> None:
        line.silent()
        raise RuntimeError

    heartbeat = Heartbeat(line.connect, 5.0, fails)
    running = asyncio.create_task(heartbeat.run())
    try:
        await until(lambda: line.opened)
        line.cut(ConnectionRefusedError())
        await until(lambda: line.silences)
        line.mend()
        await until(lambda: heartbeat.answers)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        line.cut(None)


async def test_a_lost_connection_makes_the_others_suspect(line: Line, heartbeat: Heartbeat) -> None:
    line.cut(ConnectionRefusedError())
    await until(lambda: heartbeat.losses == 1)
    assert not heartbeat.answers


async def test_a_connection_that_was_cut_is_opened_again_and_the_server_counts_as_there(
    line: Line, heartbeat: Heartbeat
) -> None:
    line.cut(None)
    await until(lambda: len(line.opened) == 2)
    assert heartbeat.losses == 1
    assert line.silences == 0


async def test_a_server_that_is_full_answers_after_all(line: Line, heartbeat: Heartbeat) -> None:
    line.cut(asyncpg.TooManyConnectionsError())
    await until(lambda: heartbeat.losses)
    await until(lambda: heartbeat.answers)
    await asyncio.sleep(0.5)
    assert heartbeat.answers


async def test_a_server_that_starts_does_not_answer_yet(line: Line, heartbeat: Heartbeat) -> None:
    line.cut(asyncpg.CannotConnectNowError())
    await until(lambda: heartbeat.losses)
    await asyncio.sleep(0.5)
    assert not heartbeat.answers


async def test_a_process_that_has_no_time_to_look_does_not_blame_the_server(line: Line) -> None:
    heartbeat = Heartbeat(line.connect, 0.2, line.silent)
    running = asyncio.create_task(heartbeat.run())
    await until(lambda: line.opened)
    for _ in range(15):
        await asyncio.sleep(0.001)
        time.sleep(0.3)  # as reading a body of many MiB does
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert line.silences == 0


async def test_a_server_that_says_nothing_in_time_is_silent(line: Line) -> None:
    heartbeat = Heartbeat(line.connect, 0.2, line.silent)
    running = asyncio.create_task(heartbeat.run())
    await until(lambda: line.opened)
    other = await asyncpg.connect(line.url)
    pid = await other.fetchval("SELECT pid FROM pg_stat_activity WHERE application_name = 'heartbeat under test'")
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: line.silences)
    finally:
        os.kill(pid, signal.SIGCONT)
    await other.close()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)

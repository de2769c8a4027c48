"""The heartbeat notices when a server stops responding, and when it responds again."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from factory_logs.db.heartbeat import Heartbeat
from factory_logs.errors import DatabaseConnectError

NAME = {"application_name": "heartbeat under test"}


def refused(sqlstate: str | None = None) -> DatabaseConnectError:
    return DatabaseConnectError("away", "refused", sqlstate)


class Line:
    """Connects to PostgreSQL until a test cuts the line; then connecting raises the error given to `cut`."""

    def __init__(self, url: str) -> None:
        self.silences = 0
        self._error: Exception | None = None
        self.opened: list[asyncpg.Connection] = []
        self.url = url

    async def connect(self) -> asyncpg.Connection:
        if self._error is not None:
            raise self._error
        self.opened.append(await asyncpg.connect(self.url, server_settings=NAME))
        return self.opened[-1]

    def cut(self, error: Exception | None) -> None:
        self._error = error
        for connection in self.opened:
            connection.terminate()

    def mend(self) -> None:
        self._error = None

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


async def test_before_the_first_beat_the_server_counts_as_reachable(line: Line) -> None:
    assert Heartbeat(line.connect, 1.0, line.silent).is_responding


async def test_an_unreachable_server_is_logged_once_and_so_is_its_return(line: Line, heartbeat: Heartbeat) -> None:
    line.cut(refused())
    await until(lambda: not heartbeat.is_responding)
    await asyncio.sleep(0.5)
    assert line.silences == 1
    line.mend()
    await until(lambda: heartbeat.is_responding)


async def test_it_continues_after_an_unexpected_error(line: Line) -> None:
    def fails() -> None:
        line.silent()
        raise RuntimeError

    heartbeat = Heartbeat(line.connect, 5.0, fails)
    running = asyncio.create_task(heartbeat.run())
    try:
        await until(lambda: line.opened)
        line.cut(refused())
        await until(lambda: line.silences)
        line.mend()
        await until(lambda: heartbeat.is_responding)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        line.cut(None)


async def test_a_lost_connection_causes_a_check_of_the_others(line: Line, heartbeat: Heartbeat) -> None:
    line.cut(refused())
    await until(lambda: heartbeat.losses == 1)
    assert not heartbeat.is_responding


async def test_a_cut_connection_is_opened_again_and_the_server_counts_as_reachable(
    line: Line, heartbeat: Heartbeat
) -> None:
    line.cut(None)
    await until(lambda: len(line.opened) == 2)
    assert heartbeat.losses == 1
    assert line.silences == 0


async def test_a_server_without_free_connections_counts_as_reachable(line: Line, heartbeat: Heartbeat) -> None:
    line.cut(refused("53300"))
    await until(lambda: heartbeat.losses)
    await until(lambda: heartbeat.is_responding)
    await asyncio.sleep(0.5)
    assert heartbeat.is_responding


async def test_a_starting_server_does_not_count_as_reachable(line: Line, heartbeat: Heartbeat) -> None:
    line.cut(refused("57P03"))
    await until(lambda: heartbeat.losses)
    await asyncio.sleep(0.5)
    assert not heartbeat.is_responding


@pytest.mark.slow
async def test_a_busy_process_does_not_count_the_server_as_unreachable(line: Line) -> None:
    heartbeat = Heartbeat(line.connect, 2.0, line.silent)
    running = asyncio.create_task(heartbeat.run())
    await until(lambda: line.opened)
    for _ in range(4):
        await asyncio.sleep(0.001)
        time.sleep(2.5)  # as decoding a body of many MiB does
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert line.silences == 0


async def test_a_server_that_does_not_respond_in_time_is_silent(line: Line) -> None:
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

"""Processes are killed and links break at random: every log whose send() has returned arrives exactly once, in order.

A short form always runs. FACTORY_LOGS_KILL_ROUNDS=200 runs the long form, FACTORY_LOGS_KILL_SEED another sequence.
"""

import multiprocessing
import os
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import asyncpg
import pytest

from factory_logs.client import Client, ClientSettings
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.client import victim
from tests.client.servers import BadLink, Server

ROUNDS = int(os.environ.get("FACTORY_LOGS_KILL_ROUNDS", "8"))
SEED = int(os.environ.get("FACTORY_LOGS_KILL_SEED", "20240131"))


@pytest.fixture
async def token(database: Database) -> str:
    user = await UserRepository(database).create("jig-07", "Jig 7", None, Level.SYSTEM)
    return await issue_token(database, user.user_id, expires_at=None)


@pytest.fixture
def server(migrated_url: str, tmp_path: Path) -> Iterator[Server]:
    server = Server(migrated_url, tmp_path / "server.log")
    server.start()
    server.wait()
    yield server
    server.stop()


class Victims:
    """Processes forked from one that has already imported the client, so that a round is short."""

    def __init__(self, spool: Path, url: str, token: str, rng: random.Random) -> None:
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["tests.client.victim"])
        self._arguments = (str(spool), url, token)
        self._random = rng
        self.last_sent: dict[str, int] = {}

    def round(self, number: int) -> None:
        """Start one or two victims on one spool, and kill each of them some time after its first log."""
        names = [f"{number}-{index}" for index in range(self._random.choice((1, 1, 2)))]
        started = [self._start(name) for name in names]
        for name, (process, heard) in zip(names, started, strict=True):
            self.last_sent[name] = heard.recv()
            process.join(self._random.uniform(0.0, 0.3))
            assert process.exitcode is None, "the victim ended by itself"
            process.kill()
            process.join()
            self.last_sent[name] = _last(heard, self.last_sent[name])

    def _start(self, name: str) -> tuple[multiprocessing.process.BaseProcess, Connection]:
        heard, reported = self._context.Pipe(duplex=False)
        seed = self._random.randrange(2**32)
        process = self._context.Process(target=victim.send_until_killed, args=(*self._arguments, name, seed, reported))
        process.start()
        reported.close()
        return process, heard


def _last(heard: Connection, last: int) -> int:
    """Return the last number that a dead process has printed; an incomplete line does not count."""
    with heard:
        try:
            while True:
                last = heard.recv()
        except (EOFError, OSError):
            return last


async def stored(url: str) -> dict[str, list[int]]:
    """Return the stored numbers of each victim, in order of id."""
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(
            "SELECT fields->>'victim', (fields->>'number')::int FROM factory_logs WHERE app_name = $1"
            " ORDER BY factory_log_id",
            victim.APP,
        )
    finally:
        await connection.close()
    numbers: dict[str, list[int]] = defaultdict(list)
    for name, number in rows:
        numbers[name].append(number)
    return numbers


async def test_logs_for_which_send_returned_arrive_exactly_once_and_in_order(
    server: Server, token: str, migrated_url: str, tmp_path: Path
) -> None:
    rng = random.Random(SEED)
    spool = tmp_path / "spool"
    kills = 0
    with BadLink(server.port, rng.randrange(2**32)) as link:
        victims = Victims(spool, link.url, token, rng)
        for number in range(ROUNDS):
            if not server.is_running:
                server.start()
            if number % 7 == 0:
                server.wait()  # meanwhile it may still be starting, but then there must be a process to kill
            killer = threading.Timer(rng.uniform(0.0, 0.3), server.kill)
            if number % 7 == 3:
                killer.start()
                kills += 1
            victims.round(number)
            if killer.ident is not None:
                killer.join()
        if not server.is_running:
            server.start()
        server.wait()
        link.good = True
        with Client(link.url, token, spool=spool, settings=ClientSettings(backoff_cap_seconds=1.0)) as client:
            assert client.flush(300), client.status()
            status = client.status()

    found = await stored(migrated_url)
    lost = {name: set(range(last + 1)) - set(found[name]) for name, last in victims.last_sent.items()}
    doubled = {name: len(numbers) - len(set(numbers)) for name, numbers in found.items()}
    total = sum(map(len, found.values()))
    print(  # noqa: T201 - the counts are what a long run is for
        f"seed {SEED}: {ROUNDS} rounds, {len(victims.last_sent)} clients and {kills} servers killed, {link.cuts} "
        f"connections cut, {total} logs stored, {sum(map(len, lost.values()))} lost, {sum(doubled.values())} doubled"
    )
    assert link.cuts, "the link was never bad"
    assert not any(lost.values())
    assert not any(doubled.values())
    for name, numbers in found.items():
        # The server has all printed logs in order, and at most one more: the log whose send() was interrupted.
        assert numbers == list(range(len(numbers)))
        assert len(numbers) <= victims.last_sent[name] + 2
    assert (status.totals.rejected, status.totals.dropped, status.totals.pending) == (0, 0, 0)
    assert not list(spool.glob("*.damaged"))

import asyncio
import multiprocessing
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from factory_logs.client import AsyncClient, Client, ClosedError, InvalidLogError
from tests.client.factories import NOWHERE, settings
from tests.client.servers import Server


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_it_has_the_names_of_the_client() -> None:
    assert public(AsyncClient) == {"send", "send_many", "flush", "status", "close"}
    assert public(AsyncClient) <= public(Client)


async def test_logs_arrive_in_the_order_in_which_they_were_sent(
    shared_server: Server, token: str, tmp_path: Path, migrated_url: str
) -> None:
    async with AsyncClient(shared_server.url, token, spool=tmp_path, settings=settings()) as log:
        await asyncio.gather(*(log.send("jig", fields={"n": n}) for n in range(50)))
        assert await log.send_many({"app_name": "jig", "fields": {"n": n}} for n in range(50, 60)) == 10
        assert await log.flush(120)
        status = await log.status()
        assert (status.totals.delivered, status.totals.pending, status.trouble) == (60, 0, None)
    connection = await asyncpg.connect(migrated_url)
    rows = await connection.fetch("SELECT (fields->>'n')::int n FROM factory_logs ORDER BY factory_log_id")
    assert [row["n"] for row in rows] == list(range(60))
    times = await connection.fetch("SELECT DISTINCT timestamp FROM factory_logs")
    assert len(times) == 60
    await connection.close()


async def test_the_event_loop_runs_while_the_disk_is_busy(tmp_path: Path) -> None:
    async with AsyncClient(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0)) as log:
        with closing(sqlite3.connect(tmp_path / "spool-1.sqlite3", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            sending = asyncio.create_task(log.send("jig"))
            for _ in range(20):
                await asyncio.sleep(0.01)
            assert not sending.done()
            other.execute("ROLLBACK")
        await sending
        assert (await log.status()).totals.pending == 1
        assert not await log.flush(0.1)


async def test_a_bad_log_and_a_closed_client_are_errors_here_too(tmp_path: Path) -> None:
    log = AsyncClient(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0))
    with pytest.raises(InvalidLogError, match="app_name"):
        await log.send("")
    await log.close()
    await log.close()
    with pytest.raises(ClosedError):
        await log.send("jig")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_can_use_its_parents_client(tmp_path: Path) -> None:
    log = AsyncClient(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0))
    asyncio.run(log.send("parent"))  # starts the thread that the child does not have
    child = multiprocessing.get_context("fork").Process(target=_send_in_a_child, args=(log,))
    child.start()
    child.join(60)
    child.kill()
    assert child.exitcode == 0
    assert asyncio.run(log.status()).totals.pending == 2
    asyncio.run(log.close())


def _send_in_a_child(log: AsyncClient) -> None:
    asyncio.run(log.send("child"))

"""A caller that goes away stops the query that was to answer it. Asked of a server in a process of its own."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg
import httpx
import pytest
from starlette.requests import ClientDisconnect

from factory_logs.api.streams import LOOK_SECONDS, unless_gone
from factory_logs.security.levels import Level
from tests.api.test_logs import LOG
from tests.api.test_repairs import FULL
from tests.client.servers import Server

WAITING = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def server(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(
        migrated_url, tmp_path_factory.mktemp("gone") / "log", page_connections=1, pool_size=2, count_look_seconds=0.001
    )
    server.start()
    server.wait()
    yield server
    server.stop()


@pytest.fixture
async def caller(server: Server, tokens: dict[Level, str]) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Token token={tokens[Level.SYSTEM]}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=20) as client:
        assert (await client.post("/v1/factory_logs", json=LOG)).status_code == 201
        assert (await client.post("/v1/repairs", json=FULL)).status_code == 201
        yield client


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Nobody can read logs or repairs meanwhile. Gives a connection to watch them with."""
    holder, watcher = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        async with holder.transaction():
            await holder.execute("LOCK TABLE factory_logs, repairs IN ACCESS EXCLUSIVE MODE")
            yield watcher
    finally:
        await holder.close()
        await watcher.close()


async def waiting(watcher: asyncpg.Connection, *, expected: bool) -> str:
    """Wait until there is, or is not, a query that waits for a table; gives its SQL."""
    async with asyncio.timeout(20):
        while True:
            found = await watcher.fetchval(WAITING)
            if bool(found) is expected:
                return found or ""
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Kind:
    """A kind of reading: its path, and how the SQL that is stopped begins, of which PostgreSQL shows 1024 bytes."""

    path: str
    begins: str
    accept: str = "application/json"


def filtered(app: str) -> str:
    """A filter that nothing else here asks for, so that nobody knows its count."""
    return f'q={{"filters": [{{"name": "app_name", "op": "==", "val": "{app}"}}]}}'


COUNT = r"SELECT \nCASE WHEN .*FROM \(SELECT count\(\*\) AS logs, "
LOG_TEXT, REPAIR_TEXT = (rf"SELECT '\{{\"{key}\":" for key in ("factory_log_id", "repair_id"))
KINDS = {
    "a log by id": Kind("/v1/factory_logs/1", "SELECT factory_log_id, "),
    "the first count of a page": Kind(f"/v1/factory_logs?{filtered('paged')}", COUNT),
    "the first count of a walk": Kind(f"/v1/factory_logs?{filtered('walked')}&cursor=", COUNT),
    "a page of groups": Kind('/v1/factory_logs?q={"group_by": [{"field": "app_name"}]}', "SELECT .*string_agg"),
    "a single log": Kind('/v1/factory_logs?q={"single": true}', LOG_TEXT),
    "stats": Kind("/v1/factory_logs/stats?by=app_name", "SELECT .*GROUP BY"),
    "an export": Kind("/v1/factory_logs", LOG_TEXT, accept="application/x-ndjson"),
    "an export as CSV": Kind("/v1/factory_logs", 'SELECT coalesce."factory_log_id"', accept="text/csv"),
    "a repair by id": Kind("/v1/repairs/1", REPAIR_TEXT),
    "a page of repairs": Kind("/v1/repairs", "SELECT .*string_agg"),
    "a walk through repairs": Kind("/v1/repairs?cursor=", r"SELECT .*count\(\*\)"),
    "an export of repairs": Kind("/v1/repairs", REPAIR_TEXT, accept="application/x-ndjson"),
}


@pytest.mark.parametrize("name", KINDS)
async def test_the_query_of_a_caller_that_has_gone_is_stopped_and_its_connection_serves_the_next(
    caller: httpx.AsyncClient, server: Server, migrated_url: str, name: str
) -> None:
    """Three in turn, so that none of the one or two connections may have been kept."""
    kind = KINDS[name]
    async with locked(migrated_url) as watcher:
        for _ in range(3):
            asking = asyncio.create_task(caller.get(kind.path, headers={"Accept": kind.accept}))
            stopped = await waiting(watcher, expected=True)
            asking.cancel()
            await waiting(watcher, expected=False)
    assert re.match(kind.begins, stopped, re.DOTALL), stopped
    assert (await caller.get(kind.path, headers={"Accept": kind.accept})).status_code == 200
    assert "unexpected error" not in server.output


@pytest.mark.parametrize(("way", "shows"), [("page=1", "string_agg"), ("cursor=", "max(")])
async def test_so_is_the_query_of_a_page_whose_count_is_known(
    caller: httpx.AsyncClient, migrated_url: str, way: str, shows: str
) -> None:
    """Known from the first answer on, as the log is settled by then."""
    path = f"/v1/factory_logs?{way}"
    assert (await caller.get(path)).json()["num_results"] == 1
    async with locked(migrated_url) as watcher:
        asking = asyncio.create_task(caller.get(path))
        stopped = await waiting(watcher, expected=True)
        asking.cancel()
        await waiting(watcher, expected=False)
    assert stopped.startswith("SELECT anon_1.run, "), stopped  # the state that what is known belongs to
    assert shows in stopped, stopped
    assert (await caller.get(path)).json()["num_results"] == 1


async def test_what_is_done_before_anybody_looks_is_given() -> None:
    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def quick() -> int:
        return 42

    async def failing() -> int:
        raise TimeoutError("its own")

    assert await unless_gone(receive, quick()) == 42
    with pytest.raises(TimeoutError, match="its own"):
        await unless_gone(receive, failing())


async def test_what_takes_longer_is_cancelled_once_the_caller_has_gone() -> None:
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])
    cancelled = False

    async def receive() -> dict[str, str]:
        return next(messages)

    async def slow() -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(LOOK_SECONDS * 1000)
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(ClientDisconnect):
        await unless_gone(receive, slow())
    assert cancelled

"""A caller that goes away stops the query that was to answer it. Asked of a server in a process of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from starlette.requests import ClientDisconnect

from factory_logs.api.streams import LOOK_SECONDS, unless_gone
from factory_logs.security.levels import Level
from tests.api.test_exports import exporting, locked
from tests.api.test_logs import LOG
from tests.client.servers import Server


@pytest.fixture(scope="module")
def server(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(migrated_url, tmp_path_factory.mktemp("gone") / "log", page_connections=1, pool_size=2)
    server.start()
    server.wait()
    yield server
    server.stop()


@pytest.fixture
async def caller(server: Server, tokens: dict[Level, str]) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Token token={tokens[Level.SYSTEM]}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=20) as client:
        assert (await client.post("/v1/factory_logs", json=LOG)).status_code == 201
        yield client


@pytest.mark.parametrize(
    "path",
    [
        "?page=1",
        "?cursor=",
        '?q={"single": true}',
        '?q={"group_by": [{"field": "app_name"}]}',
        "/stats?by=factory_log_id",
    ],
)
async def test_the_query_of_a_caller_that_has_gone_is_stopped_and_its_connection_serves_the_next(
    caller: httpx.AsyncClient, server: Server, migrated_url: str, path: str
) -> None:
    """Three in turn, so that none of the one or two connections may have been kept."""
    async with locked(migrated_url):
        for _ in range(3):
            asking = asyncio.create_task(caller.get(f"/v1/factory_logs{path}"))
            await exporting(migrated_url, expected=True)
            asking.cancel()
            await exporting(migrated_url, expected=False)
    assert (await caller.get(f"/v1/factory_logs{path}")).status_code == 200
    assert "unexpected error" not in server.output


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

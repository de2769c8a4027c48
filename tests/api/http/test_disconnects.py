"""If a client disconnects, its query is stopped. The server runs in a separate process."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import asyncpg
import httpx
import pytest
from starlette.requests import ClientDisconnect

from factory_logs.api.http.streaming import DISCONNECT_CHECK_DELAY, cancel_on_disconnect
from factory_logs.permissions import Level
from tests.client.servers import Server
from tests.conftest import CITUS_URL
from tests.factories import LOG, REPAIR
from tests.locking import locked

WAITING = "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()"


@pytest.fixture(scope="module")
def server(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(
        migrated_url,
        tmp_path_factory.mktemp("gone") / "log",
        page_connections=1,
        pool_size=2,
        count_look_seconds=0.001,
        database_metrics_seconds=3600,
        catalog_seconds=3600,
        half_closed_seconds=0.1,
    )
    server.start()
    server.wait()
    yield server
    server.stop()


@pytest.fixture
async def caller(server: Server, tokens: dict[Level, str]) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Token token={tokens[Level.SYSTEM]}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        assert (await client.post("/v1/factory_logs", json=LOG)).status_code == 201
        assert (await client.post("/v1/repairs", json=REPAIR)).status_code == 201
        yield client


async def until_waiting(watcher: asyncpg.Connection, begins: str, *, expected: bool) -> None:
    """Wait until a query that begins so waits for a table, or until none does. The services of other tests may wait for
    the table too."""
    async with asyncio.timeout(60):
        while any(re.match(begins, row[0], re.DOTALL) for row in await watcher.fetch(WAITING)) is not expected:
            await asyncio.sleep(0.02)


@dataclass(frozen=True)
class Kind:
    """A kind of read: its path, and the beginning of its SQL, of which PostgreSQL shows 1024 bytes."""

    path: str
    begins: str
    accept: str = "application/json"


def filtered(app: str) -> str:
    """No other test uses this filter, so its count is not cached."""
    return f'q={{"filters": [{{"name": "app_name", "op": "==", "val": "{app}"}}]}}'


COUNT = r"SELECT \nCASE WHEN .*FROM \(SELECT count\(\*\) AS logs, "
PAGE = "SELECT .*string_agg"
KNOWN_COUNT = r"SELECT anon_1\.run, .*"
"""A count on top of a known one begins with the state that the known one belongs to."""
LOG_TEXT, REPAIR_TEXT = (rf"SELECT '\{{\"{key}\":" for key in ("factory_log_id", "repair_id"))
IDS = r"SELECT \(SELECT factory_logs\.factory_log_id .* DESC"
"""The first statement of an aggregate: between which ids a sample of its logs would lie."""
EXPORT, EXPORT_OF_REPAIRS, EXPORT_AS_CSV = LOG_TEXT, REPAIR_TEXT, 'SELECT coalesce."factory_log_id"'
if CITUS_URL is not None:  # the count of a page is a statement of its own, and an export reads page by page
    COUNT = KNOWN_COUNT = r"SELECT count\(\*\) AS logs, "
    PAGE = r"SELECT count\(\*\) AS count_1"
    EXPORT = EXPORT_OF_REPAIRS = EXPORT_AS_CSV = r"SELECT coalesce\(max\("
KINDS = {
    "a log by id": Kind("/v1/factory_logs/1", "SELECT factory_log_id, "),
    "the first count of a page": Kind(f"/v1/factory_logs?{filtered('paged')}", COUNT),
    "the first count of a traversal": Kind(f"/v1/factory_logs?{filtered('traversed')}&cursor=", COUNT),
    "a page of groups": Kind('/v1/factory_logs?q={"group_by": [{"field": "app_name"}]}', PAGE),
    "a single log": Kind('/v1/factory_logs?q={"single": true}', LOG_TEXT),
    "stats": Kind("/v1/factory_logs/stats?by=app_name", IDS),
    "a yield": Kind("/v1/factory_logs/yield", IDS),
    "failures": Kind("/v1/factory_logs/failures", IDS),
    "a distribution": Kind("/v1/factory_logs/distribution?field=fields__v", IDS),
    "facets": Kind("/v1/factory_logs/facets?field=app_name", IDS),
    "the catalog": Kind("/v1/factory_logs/catalog", "SELECT .*min"),
    "a unit": Kind("/v1/units/352099001761481", "SELECT .*count"),
    "an export": Kind("/v1/factory_logs", EXPORT, accept="application/x-ndjson"),
    "an export as CSV": Kind("/v1/factory_logs", EXPORT_AS_CSV, accept="text/csv"),
    "a repair by id": Kind("/v1/repairs/1", REPAIR_TEXT),
    "a page of repairs": Kind("/v1/repairs", PAGE),
    "a traversal of repairs": Kind("/v1/repairs?cursor=", r"SELECT .*count\(\*\)"),
    "an export of repairs": Kind("/v1/repairs", EXPORT_OF_REPAIRS, accept="application/x-ndjson"),
}


@pytest.mark.parametrize("name", KINDS)
async def test_the_query_of_a_disconnected_client_is_cancelled_and_its_connection_is_reused(
    caller: httpx.AsyncClient, server: Server, migrated_url: str, name: str
) -> None:
    """Three requests in turn would find it if one of the one or two connections were still occupied."""
    kind = KINDS[name]
    async with locked(migrated_url) as watcher:
        for _ in range(3):
            asking = asyncio.create_task(caller.get(kind.path, headers={"Accept": kind.accept}))
            await until_waiting(watcher, kind.begins, expected=True)
            asking.cancel()
            await until_waiting(watcher, kind.begins, expected=False)
    assert (await caller.get(kind.path, headers={"Accept": kind.accept})).status_code == 200
    assert "unexpected error" not in server.output


@pytest.mark.parametrize(("way", "shows"), [("page=1", "string_agg"), ("cursor=", r"max\(")])
async def test_the_query_of_a_page_with_a_cached_count_is_cancelled_too(
    caller: httpx.AsyncClient, migrated_url: str, way: str, shows: str
) -> None:
    """The count is cached after the first response, because the watermark is above the log by then."""
    path = f"/v1/factory_logs?{way}"
    assert (await caller.get(path)).json()["num_results"] == 1
    async with locked(migrated_url) as watcher:
        asking = asyncio.create_task(caller.get(path))
        begins = KNOWN_COUNT + shows if CITUS_URL is None else KNOWN_COUNT
        await until_waiting(watcher, begins, expected=True)
        asking.cancel()
        await until_waiting(watcher, begins, expected=False)
    assert (await caller.get(path)).json()["num_results"] == 1


async def test_work_that_ends_before_the_first_check_is_returned() -> None:
    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def quick() -> int:
        return 42

    async def failing() -> int:
        raise TimeoutError("its own")

    assert await cancel_on_disconnect(receive, quick()) == 42
    with pytest.raises(TimeoutError, match="its own"):
        await cancel_on_disconnect(receive, failing())


async def test_longer_work_is_cancelled_once_the_client_has_disconnected() -> None:
    messages = iter([{"type": "http.request"}, {"type": "http.disconnect"}])
    cancelled = False

    async def receive() -> dict[str, str]:
        return next(messages)

    async def slow() -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(DISCONNECT_CHECK_DELAY * 1000)
        except asyncio.CancelledError:
            cancelled = True
            raise

    with pytest.raises(ClientDisconnect):
        await cancel_on_disconnect(receive, slow())
    assert cancelled

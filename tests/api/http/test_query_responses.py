"""`Accept` selects an export of a whole result (docs/reference/http-api.md#exports). Streams are tested on a server in
a separate process."""

import asyncio
import csv
import json
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from urllib.parse import quote

import asyncpg
import httpx
import pytest
from starlette.requests import Request

from factory_logs.api.http.query_responses import ExportBrokenOffError, checked_parts, export_format
from factory_logs.errors import UnauthenticatedError
from factory_logs.permissions import Level
from factory_logs.querier.exports import ExportFormat
from tests.api.conftest import ask, client_of, worker
from tests.client.servers import Server
from tests.factories import LOG
from tests.locking import locked

NDJSON, CSV = ({"Accept": export_format.value} for export_format in (ExportFormat.NDJSON, ExportFormat.CSV))
MUCH = """
    INSERT INTO factory_logs (app_name, timestamp, fields)
    SELECT 'much', '2024-01-31', to_jsonb(repeat(n::text, 1000)) FROM generate_series(1000, 9000) AS n
"""
SETTINGS = {"max_exports": 1, "export_send_seconds": 1, "token_cache_seconds": 0.2}


async def lines(client: httpx.AsyncClient, **q: object) -> list[dict[str, object]]:
    response = await client.get("/v1/factory_logs", params={"q": json.dumps(q)}, headers=NDJSON)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/x-ndjson")
    return [json.loads(line) for line in response.text.splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "q",
    [
        {},
        {"order_by": [{"field": "timestamp", "direction": "desc"}, {"field": "app_name"}]},
        {"filters": [{"name": "app_name", "op": "like", "val": "%1%"}], "limit": 5, "offset": 1},
        {"group_by": [{"field": "app_name"}]},
        {"filters": [{"name": "app_name", "op": "==", "val": "none"}]},
    ],
)
async def test_the_stream_has_the_same_records_as_the_pages(client: httpx.AsyncClient, q: dict[str, object]) -> None:
    logs = [LOG | {"app_name": f"app-{n % 15}", "tags": None if n % 3 else {"n": n}} for n in range(30)]
    await client.post("/v1/factory_logs", json=logs)
    expected = (await ask(client, q=q, results_per_page=100)).json()["objects"]
    assert await lines(client, **q) == expected
    response = await client.get("/v1/factory_logs", params={"q": json.dumps(q), "page": "0"}, headers=CSV)
    assert response.headers["content-type"].startswith("text/csv")
    rows = list(csv.DictReader(response.text.splitlines()))
    assert [row["factory_log_id"] for row in rows] == [str(log["factory_log_id"]) for log in expected]
    assert response.text.splitlines()[0].startswith("factory_log_id,app_name,product_imei,repair_id,timestamp,tags,")


async def test_csv_quotes_cells_with_special_characters(client: httpx.AsyncClient) -> None:
    texts = ['a,"b"', "two\nlines", "carriage\rreturn", "plain", "ü;\t'", " "]
    for text in texts:
        await client.post("/v1/factory_logs", json=LOG | {"app_name": text, "fields": {text: 1.0}, "tags": None})
    response = await client.get("/v1/factory_logs", headers=CSV)
    rows = list(csv.DictReader(response.text.splitlines(keepends=True)))
    assert [row["app_name"] for row in rows] == texts
    assert [json.loads(row["fields"]) for row in rows] == [{text: 1.0} for text in texts]
    assert {(row["tags"], row["timestamp"]) for row in rows} == {("", "2024-01-31 13:45:00.500000")}


@pytest.mark.parametrize("collection", ["factory_logs", "repairs"])
async def test_texts_that_a_spreadsheet_would_run_are_escaped_on_demand(
    client: httpx.AsyncClient, collection: str
) -> None:
    texts = ["=1+1", "+1", "-1", "@a", '=HYPERLINK("x","y")', "a=1", "'=1"]
    for text in texts:
        record = {"product_imei": "352099001761481", "outcome": text, "pending_status": "=1"}
        log = LOG | {"app_name": text}
        assert (
            await client.post(f"/v1/{collection}", json=record if collection == "repairs" else log)
        ).status_code == 201
    column = "outcome" if collection == "repairs" else "app_name"
    for asked, expected in (
        ({}, texts),
        ({"escape_formulas": "false"}, texts),
        ({"escape_formulas": "true"}, [f"'{text}" if text[0] in "=+-@" else text for text in texts]),
    ):
        response = await client.get(f"/v1/{collection}", params=asked, headers=CSV)
        assert [row[column] for row in csv.DictReader(response.text.splitlines())] == expected
        assert len((await client.get(f"/v1/{collection}", params=asked, headers=NDJSON)).text.splitlines()) == len(
            texts
        )


@pytest.mark.parametrize("value", ["", "1", "yes", "\ud800"])
async def test_an_invalid_escape_formulas_gets_a_400(client: httpx.AsyncClient, value: str) -> None:
    response = await client.get(f"/v1/factory_logs?escape_formulas={quote(value, errors='surrogatepass')}", headers=CSV)
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "escape_formulas")


async def test_single_is_a_record_for_each_accept_header(client: httpx.AsyncClient) -> None:
    await client.post("/v1/factory_logs", json=LOG)
    response = await client.get("/v1/factory_logs", params={"q": '{"single": true}'}, headers=NDJSON)
    assert (response.headers["content-type"], response.json()["factory_log_id"]) == ("application/json", 1)


async def test_repairs_stream_too(client: httpx.AsyncClient) -> None:
    repair = {"product_imei": "352099001761481", "measured_battery_capacity": 2363.0, "outcome": "a, b"}
    stored = (await client.post("/v1/repairs", json=repair)).json()
    assert json.loads((await client.get("/v1/repairs", headers=NDJSON)).text) == stored
    (row,) = csv.DictReader((await client.get("/v1/repairs", headers=CSV)).text.splitlines())
    assert (row["measured_battery_capacity"], row["outcome"], row["process"]) == ("2363.0", "a, b", "")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", None),
        ("*/*", None),
        ("text/html, application/xhtml+xml, */*;q=0.8", None),
        ("image/png", None),
        ("text/csv", ExportFormat.CSV),
        ("Text/CSV; header=present", ExportFormat.CSV),
        ("application/json, text/csv", None),
        ("application/json;q=0.5, text/csv", ExportFormat.CSV),
        ("text/csv;q=0.1, application/x-ndjson;q=0.9, */*;q=0.2", ExportFormat.NDJSON),
        ("text/csv;q=0", None),
        ("text/csv;q=x", None),
        ("text/csv;q=nan", None),
    ],
)
def test_the_preferred_format_is_chosen_and_json_for_any_other(accept: str, chosen: ExportFormat | None) -> None:
    scope = {"type": "http", "headers": [(b"accept", accept.encode())]}
    assert export_format(Request(scope)) is chosen


async def test_an_error_before_the_first_byte_is_a_json_error(
    client: httpx.AsyncClient, anonymous: httpx.AsyncClient
) -> None:
    assert (await anonymous.get("/v1/factory_logs", headers=CSV)).status_code == 401
    response = await client.get("/v1/factory_logs", params={"q": "{"}, headers=CSV)
    assert (response.status_code, response.json()["message"]) == (400, "Unable to decode data")


async def test_a_query_that_takes_too_long_before_its_first_row_gets_a_503(
    migrated_url: str, tokens: dict[Level, str]
) -> None:
    async with (
        worker(migrated_url, statement_timeout_seconds=0.2) as app,
        client_of(app, tokens[Level.OVERVIEW]) as client,
        locked(migrated_url),
    ):
        response = await client.get("/v1/factory_logs", headers=NDJSON)
        assert (response.status_code, "0.2 s" in response.json()["message"]) == (503, True)


async def numbered(pause: float = 0) -> AsyncGenerator[str]:
    for number in "123":
        yield number
        await asyncio.sleep(pause)


async def test_an_export_has_a_time_limit_after_its_first_part() -> None:
    async def allowed() -> bool:
        return True

    assert [part async for part in checked_parts(numbered(), allowed, 60)] == [b"1", b"2", b"3"]
    parts = checked_parts(numbered(pause=0.02), allowed, 0.01)
    assert await anext(parts) == b"1"
    with pytest.raises(ExportBrokenOffError):
        await anext(parts)


async def test_a_token_that_ends_before_the_first_part_gets_a_401() -> None:
    async def ended() -> bool:
        return False

    with pytest.raises(UnauthenticatedError):
        await anext(checked_parts(numbered(), ended, 60))


@pytest.fixture(scope="module")
def server(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(migrated_url, tmp_path_factory.mktemp("exports") / "log", **SETTINGS)
    server.start()
    server.wait()
    yield server
    server.stop()


@pytest.fixture
async def much(server: Server, tokens: dict[Level, str], migrated_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """About 30 MB to export, more than the buffers of the sockets between server and client."""
    connection = await asyncpg.connect(migrated_url)
    await connection.execute(MUCH)
    await connection.close()
    # Not compressed, because a compressed export would be sent completely before the test can act.
    headers = {"Authorization": f"Token token={tokens[Level.OVERVIEW]}", "Accept-Encoding": "identity"} | NDJSON
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        yield client


async def exporting(url: str, *, expected: bool, kill: bool = False) -> None:
    """Wait until the query of an export runs, or until none runs; with `kill`, end its backend."""
    connection = await asyncpg.connect(url)
    asked = """
        SELECT pid FROM pg_stat_activity
        WHERE pid <> pg_backend_pid() AND state <> 'idle' AND query LIKE 'SELECT %factory_log_id%'
    """
    try:
        async with asyncio.timeout(60):
            while bool(await connection.fetch(asked)) is not expected:
                await asyncio.sleep(0.02)
        for row in await connection.fetch(asked) if kill else []:
            await connection.execute("SELECT pg_terminate_backend($1::int)", row["pid"])
    finally:
        await connection.close()


async def test_a_client_that_disconnects_before_the_first_byte_cancels_the_query(
    much: httpx.AsyncClient, migrated_url: str
) -> None:
    async with locked(migrated_url):
        asking = asyncio.create_task(much.get("/v1/factory_logs"))
        await exporting(migrated_url, expected=True)
        asking.cancel()
        await exporting(migrated_url, expected=False)


async def test_a_client_that_disconnects_during_an_export_cancels_the_query_and_releases_the_connection(
    much: httpx.AsyncClient, migrated_url: str
) -> None:
    async with much.stream("GET", "/v1/factory_logs") as response:
        assert response.status_code == 200
        await exporting(migrated_url, expected=True)
        refused = await much.get("/v1/factory_logs")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    await exporting(migrated_url, expected=False)
    async with asyncio.timeout(60):
        while (await much.get("/v1/factory_logs", params={"q": '{"limit": 1}'})).status_code == 503:
            await asyncio.sleep(0.02)


async def test_exports_are_counted_as_long_as_they_run_and_those_refused_too(
    much: httpx.AsyncClient, migrated_url: str
) -> None:
    async def shown() -> tuple[float, float]:
        lines = (await much.get("/metrics")).text.splitlines()
        names = ("factory_logs_exports ", 'factory_logs_streams_refused_total{kind="export"} ')
        running, refused = (next(line for line in lines if line.startswith(name)) for name in names)
        return float(running.split()[1]), float(refused.split()[1])

    running, refused = await shown()
    async with much.stream("GET", "/v1/factory_logs") as response:
        assert response.status_code == 200
        assert await shown() == (running + 1, refused)
        assert (await much.get("/v1/factory_logs")).status_code == 503
        assert await shown() == (running + 1, refused + 1)
    async with asyncio.timeout(60):
        while await shown() != (running, refused + 1):
            await asyncio.sleep(0.02)


async def test_an_error_during_an_export_aborts_the_connection(much: httpx.AsyncClient, migrated_url: str) -> None:
    async with much.stream("GET", "/v1/factory_logs") as response:
        await exporting(migrated_url, expected=True, kill=True)
        with pytest.raises(httpx.RemoteProtocolError):
            await read(response)


async def read(response: httpx.Response, pause: float = 0) -> None:
    async for _ in response.aiter_bytes(1_000_000):
        await asyncio.sleep(pause)


async def test_a_revoked_token_aborts_the_export(
    much: httpx.AsyncClient, migrated_url: str, tokens: dict[Level, str]
) -> None:
    async with much.stream("GET", "/v1/factory_logs") as response:
        connection = await asyncpg.connect(migrated_url)
        await connection.execute("UPDATE tokens SET revoked_at = now()")
        await connection.close()
        with pytest.raises(httpx.RemoteProtocolError):
            await read(response, pause=0.3)


async def test_a_client_that_reads_nothing_is_disconnected(
    much: httpx.AsyncClient, server: Server, migrated_url: str, tokens: dict[Level, str]
) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = "GET /v1/factory_logs HTTP/1.1\r\nHost: x\r\nAccept: text/csv\r\nAuthorization: Token token="
        connection.sendall(f"{request}{tokens[Level.OVERVIEW]}\r\n\r\n".encode())
        connection.recv(100)
        async with asyncio.timeout(60):
            while "too slow" not in server.output:
                await asyncio.sleep(0.05)
        await exporting(migrated_url, expected=False)


async def test_head_has_the_headers_and_leaves_nothing_running(much: httpx.AsyncClient, migrated_url: str) -> None:
    response = await much.head("/v1/factory_logs")
    assert (response.status_code, response.headers["content-type"], response.content) == (200, NDJSON["Accept"], b"")
    await exporting(migrated_url, expected=False)

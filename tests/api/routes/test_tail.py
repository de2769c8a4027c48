"""The tail of new logs, tested on a server in a separate process, because the stream does not end."""

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import hash_token
from tests.client.servers import Server

LOG = {"app_name": "jig", "timestamp": "2024-01-31T13:45:00Z"}
SETTINGS = {"tail_poll_seconds": 0.02, "tail_heartbeat_seconds": 0.1, "tail_send_seconds": 0.5, "max_tails": 3}


@pytest.fixture(scope="module")
def server(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(migrated_url, tmp_path_factory.mktemp("tail") / "log", token_cache_seconds=0.2, **SETTINGS)
    server.start()
    server.wait()
    yield server
    server.stop()


@dataclass(frozen=True)
class Event:
    """An event of the stream; `data` is None if it only advances the id."""

    id: int
    data: Any


@asynccontextmanager
async def following(
    server: Server, token: str, q: object = None, last_event_id: object = None, status: int = 200
) -> AsyncIterator[AsyncIterator[Event]]:
    params = {} if q is None else {"q": json.dumps(q)}
    headers = {"Authorization": f"Token token={token}"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = str(last_event_id)
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60) as client,
        client.stream("GET", "/v1/factory_logs/tail", params=params, headers=headers) as response,
    ):
        assert response.status_code == status, await response.aread()
        yield events(response)


async def events(response: httpx.Response) -> AsyncIterator[Event]:
    rest = b""
    async for part in response.aiter_bytes():
        *blocks, rest = (rest + part).split(b"\n\n")
        for block in blocks:
            event = dict(line.split(b": ", 1) for line in block.split(b"\n"))
            if b"id" in event:
                yield Event(int(event[b"id"]), json.loads(event[b"data"]) if b"data" in event else None)


async def next_logs(stream: AsyncIterator[Event], count: int) -> list[int]:
    found = []
    async for event in stream:
        if event.data is not None:
            assert event.data["factory_log_id"] == event.id
            found.append(event.id)
        if len(found) == count:
            return found
    raise AssertionError(f"the stream ended after {found}")


async def quiet(stream: AsyncIterator[Event], heartbeats: int = 4) -> int:
    """Check that only heartbeats arrive, this many; return the id of the last one."""
    last = 0
    async for event in stream:
        assert event.data is None
        last = event.id
        heartbeats -= 1
        if not heartbeats:
            break
    return last


async def store(server: Server, token: str, *logs: dict[str, object]) -> None:
    headers = {"Authorization": f"Token token={token}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        response = await client.post("/v1/factory_logs", json=[LOG | log for log in logs])
        assert response.status_code == 201, response.text


async def test_only_logs_stored_after_the_response_has_begun_are_sent(server: Server, tokens: dict[Level, str]) -> None:
    await store(server, tokens[Level.SYSTEM], {})
    async with following(server, tokens[Level.OVERVIEW]) as stream:
        await store(server, tokens[Level.SYSTEM], {"fields": {"passed": True}}, {})
        assert await next_logs(stream, 2) == [2, 3]


async def test_the_response_begins_with_an_id_for_reconnecting_so_that_no_log_is_skipped(
    server: Server, tokens: dict[Level, str]
) -> None:
    await store(server, tokens[Level.SYSTEM], {}, {})
    async with following(server, tokens[Level.OVERVIEW]) as stream:
        assert await anext(stream) == Event(2, None)
    await store(server, tokens[Level.SYSTEM], {})
    async with following(server, tokens[Level.OVERVIEW], last_event_id=2) as stream:
        assert await next_logs(stream, 1) == [3]


async def test_an_event_is_the_record_as_get_returns_it(server: Server, tokens: dict[Level, str]) -> None:
    async with following(server, tokens[Level.OVERVIEW]) as stream:
        await store(server, tokens[Level.SYSTEM], {"fields": {"text": "line\nend\u2028", "big": 2**63}})
        async for event in stream:
            if event.data is not None:
                break
    headers = {"Authorization": f"Token token={tokens[Level.OVERVIEW]}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=60) as client:
        assert event.data == (await client.get("/v1/factory_logs/1")).json()


async def test_only_logs_that_q_selects_are_sent_but_the_id_advances(server: Server, tokens: dict[Level, str]) -> None:
    q = {"filters": [{"name": "fields__passed", "op": "==", "val": False}]}
    async with following(server, tokens[Level.OVERVIEW], q) as stream:
        await store(server, tokens[Level.SYSTEM], {}, {"fields": {"passed": False}}, {"fields": {"passed": True}}, {})
        assert await next_logs(stream, 1) == [2]
        assert await quiet(stream) == 4


async def test_a_client_that_reconnects_continues_after_its_last_id(server: Server, tokens: dict[Level, str]) -> None:
    await store(server, tokens[Level.SYSTEM], *({} for _ in range(450)))
    async with following(server, tokens[Level.OVERVIEW], last_event_id=3) as stream:
        assert await next_logs(stream, 447) == list(range(4, 451))
    async with following(server, tokens[Level.OVERVIEW], last_event_id=0) as stream:
        assert await next_logs(stream, 1) == [1]


async def test_a_transaction_that_drew_a_lower_id_and_commits_later_is_not_skipped(
    server: Server, tokens: dict[Level, str], migrated_url: str
) -> None:
    late = await asyncpg.connect(migrated_url)
    insert = "INSERT INTO factory_logs (app_name, timestamp) VALUES ('late', now()) RETURNING factory_log_id"
    try:
        async with following(server, tokens[Level.OVERVIEW]) as stream:
            transaction = late.transaction()
            await transaction.start()
            assert await late.fetchval(insert) == 1
            await store(server, tokens[Level.SYSTEM], {})
            assert await quiet(stream) == 0
            await transaction.commit()
            assert await next_logs(stream, 2) == [1, 2]
    finally:
        await late.close()


async def test_no_log_is_skipped_under_concurrent_writers(
    server: Server, tokens: dict[Level, str], migrated_url: str
) -> None:
    pool = await asyncpg.create_pool(migrated_url, min_size=4, max_size=4)

    async def write(writer: int) -> None:
        for number in range(25):
            async with pool.acquire() as connection, connection.transaction():
                await connection.execute("INSERT INTO factory_logs (app_name, timestamp) VALUES ('w', now())")
                await asyncio.sleep(0.001 * ((writer * 7 + number * 3) % 5))

    async with pool, following(server, tokens[Level.OVERVIEW]) as stream:
        await asyncio.gather(*(write(writer) for writer in range(4)))
        assert await next_logs(stream, 100) == list(range(1, 101))


@pytest.mark.parametrize("q", [{"limit": 5}, {"order_by": [{"field": "timestamp"}]}, {"single": True}, {"filters": 1}])
async def test_a_q_with_more_than_filters_gets_a_400(server: Server, tokens: dict[Level, str], q: object) -> None:
    async with following(server, tokens[Level.OVERVIEW], q, status=400):
        pass


@pytest.mark.parametrize("last", ["x", "-1", "1.0", "9" * 19])
async def test_a_last_event_id_that_is_not_an_id_gets_a_400(
    server: Server, tokens: dict[Level, str], last: str
) -> None:
    async with following(server, tokens[Level.OVERVIEW], last_event_id=last, status=400):
        pass


@pytest.mark.parametrize("last", [3, 1000, 10**18 - 1])
async def test_a_last_event_id_beyond_the_newest_log_continues_at_that_log_with_a_note(
    server: Server, tokens: dict[Level, str], last: int
) -> None:
    await store(server, tokens[Level.SYSTEM], {}, {})
    headers = {"Authorization": f"Token token={tokens[Level.OVERVIEW]}", "Last-Event-ID": str(last)}
    async with (
        httpx.AsyncClient(base_url=server.url, timeout=60, headers=headers) as client,
        client.stream("GET", "/v1/factory_logs/tail") as response,
    ):
        parts = response.aiter_text()
        begun = await anext(parts)
        while "id: " not in begun:
            begun += await anext(parts)
        assert "\n: start at the newest log, because no log has the Last-Event-ID that was sent" in begun
        assert "\nid: 2\n\n" in begun
    async with following(server, tokens[Level.OVERVIEW], last_event_id=last) as stream:
        await store(server, tokens[Level.SYSTEM], {})
        assert await next_logs(stream, 1) == [3]


async def test_the_newest_id_as_last_event_id_is_not_beyond_it(server: Server, tokens: dict[Level, str]) -> None:
    async with following(server, tokens[Level.OVERVIEW]):  # so the worker has read the watermark
        await store(server, tokens[Level.SYSTEM], {}, {})
        async with following(server, tokens[Level.OVERVIEW], last_event_id=2) as stream:
            await store(server, tokens[Level.SYSTEM], {})
            assert await next_logs(stream, 1) == [3]


async def test_an_open_stream_continues_on_a_server_that_has_not_drawn_its_id_yet(
    server: Server, tokens: dict[Level, str], migrated_url: str
) -> None:
    await store(server, tokens[Level.SYSTEM], {}, {}, {})
    async with following(server, tokens[Level.OVERVIEW], last_event_id=0) as stream, asyncio.timeout(60):
        assert await next_logs(stream, 3) == [1, 2, 3]
        connection = await asyncpg.connect(migrated_url)
        try:
            # As after a failover to a standby that has not received the last commits.
            await connection.execute("DELETE FROM factory_logs WHERE factory_log_id > 1")
            await connection.execute("SELECT setval(pg_get_serial_sequence('factory_logs', 'factory_log_id'), 1)")
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'factory_logs' AND datname = current_database() AND pid <> pg_backend_pid()"
            )
            async for event in stream:
                if event.id == 1:
                    break
            await connection.execute("INSERT INTO factory_logs (app_name, timestamp) VALUES ('jig', now())")
        finally:
            await connection.close()
        assert await next_logs(stream, 1) == [2]


async def test_without_a_token_it_gets_a_401(server: Server) -> None:
    assert httpx.get(f"{server.url}/v1/factory_logs/tail", timeout=60).status_code == 401


async def test_a_revoked_token_ends_the_stream(server: Server, tokens: dict[Level, str], database: Database) -> None:
    async with following(server, tokens[Level.OVERVIEW]) as stream, asyncio.timeout(60):
        await TokenRepository(database).revoke(hash_token(tokens[Level.OVERVIEW]))
        async for _ in stream:
            pass


async def test_one_follower_over_the_limit_gets_a_503_until_another_leaves(
    server: Server, tokens: dict[Level, str]
) -> None:
    token = tokens[Level.OVERVIEW]
    async with following(server, token), following(server, token):
        async with following(server, token), following(server, token, status=503):
            pass
        async with asyncio.timeout(60):
            while True:
                try:
                    async with following(server, token):
                        return
                except AssertionError:  # the server may not have noticed the disconnect yet
                    await asyncio.sleep(0.02)


async def test_followers_are_counted_as_long_as_they_follow_and_those_refused_too(
    server: Server, tokens: dict[Level, str]
) -> None:
    token = tokens[Level.OVERVIEW]
    await shown_by_metrics(server, "factory_logs_tails", 0)
    refused = await metric(server, 'factory_logs_streams_refused_total{kind="tail"}')
    async with following(server, token), following(server, token), following(server, token):
        assert await metric(server, "factory_logs_tails") == 3
        async with following(server, token, status=503):
            pass
        assert await metric(server, 'factory_logs_streams_refused_total{kind="tail"}') == refused + 1
    await shown_by_metrics(server, "factory_logs_tails", 0)


async def metric(server: Server, name: str) -> float:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        lines = (await client.get("/metrics")).text.splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))


async def shown_by_metrics(server: Server, name: str, number: float) -> None:
    """Wait until the server has noticed that a connection has ended."""
    async with asyncio.timeout(60):
        while await metric(server, name) != number:
            await asyncio.sleep(0.02)


async def test_a_follower_that_reads_nothing_is_disconnected(server: Server, tokens: dict[Level, str]) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = "GET /v1/factory_logs/tail HTTP/1.1\r\nHost: x\r\nAuthorization: Token token="
        connection.sendall(f"{request}{tokens[Level.OVERVIEW]}\r\n\r\n".encode())
        connection.recv(100)
        for _ in range(4):
            await store(server, tokens[Level.SYSTEM], *({"fields": "x" * 200_000} for _ in range(20)))
        async with asyncio.timeout(60):
            while "too slow" not in server.output:
                await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_the_streams_end_when_the_server_is_stopped(
    migrated_url: str, tokens: dict[Level, str], tmp_path: Path
) -> None:
    server = Server(migrated_url, tmp_path / "log", **SETTINGS)
    server.start()
    server.wait()
    async with following(server, tokens[Level.OVERVIEW]) as stream:
        await quiet(stream, 1)
        stop = asyncio.create_task(asyncio.to_thread(server.stop, signal.SIGTERM))
        async for event in stream:
            assert event.data is None
        await stop
    assert "timeout graceful shutdown exceeded" not in server.output


async def test_the_openapi_document_describes_it(client: httpx.AsyncClient) -> None:
    operation = (await client.get("/openapi.json")).json()["paths"]["/v1/factory_logs/tail"]["get"]
    assert {parameter["name"] for parameter in operation["parameters"]} == {"q", "Last-Event-ID", "last_event_id"}
    assert list(operation["responses"]["200"]["content"]) == ["text/event-stream"]
    assert {"400", "401", "403", "503"} <= operation["responses"].keys()

"""A stopping service first responds to the requests that it has received."""

import asyncio
import json
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.factories import LOG
from tests.locking import locked
from tests.serving import PATIENT_SETTINGS, free_port, responds, serving

PATIENCE_SECONDS = 60
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE query LIKE '%INSERT INTO factory_logs%' AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""


async def head_of(reader: asyncio.StreamReader) -> bytes:
    return (await reader.readuntil(b"\r\n\r\n")).lower()


async def response(reader: asyncio.StreamReader) -> bytes:
    """Return the head of the next response, and skip its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
    return head


async def new_token(database: Database) -> str:
    user = await UserRepository(database).create("jig", "Jig", None, Level.SYSTEM)
    return await issue_token(database, user.user_id, expires_at=None)


def post(token: str, body: bytes, path: str = "/v1/factory_logs", headers: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Authorization: Token token={token}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def get(token: str, path: str, headers: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Token token={token}\r\n{headers}\r\n".encode()


@pytest.mark.slow
async def test_requests_that_take_longer_than_the_drain_time_get_a_503(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    token = await new_token(database)
    log = json.dumps(LOG).encode()
    requests = {
        "single": post(token, log),
        "keyed": post(token, log, headers="Idempotency-Key: a\r\n"),
        "batch": post(token, b"[%b]" % log),
        "point": post(token, b"m f=1 1706708700000000000", "/write?db=x"),
        "body that has not arrived": post(token, log)[:-1],
        "log by id": get(token, "/v1/factory_logs/1"),
        "page": get(token, "/v1/factory_logs"),
        "export": get(token, "/v1/factory_logs", "Accept: application/x-ndjson\r\n"),
        "yield": get(token, "/v1/factory_logs/yield"),
        "head": get(token, "/v1/factory_logs").replace(b"GET", b"HEAD", 1),
        "login": post(token, b'{"username": "jig", "password": "x"}', "/v1/auth/login"),
    }
    settings = PATIENT_SETTINGS | {
        "FACTORY_LOGS_DATABASE_URL": migrated_url,
        "FACTORY_LOGS_COMMIT_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        "FACTORY_LOGS_DRAIN_SECONDS": "1",
        "FACTORY_LOGS_TOKEN_CACHE_SECONDS": "3600",
    }
    port, output = free_port(), tmp_path / "log"
    with serving(settings, port, output) as process:
        connections = {}
        async with asyncio.timeout(PATIENCE_SECONDS):
            for name in requests:
                reader, writer = connections[name] = await asyncio.open_connection("127.0.0.1", port)
                writer.write(post(token, log))  # now the token is cached
                assert (await response(reader)).startswith(b"http/1.1 201 ")
            async with locked(migrated_url) as watcher:
                await watcher.execute("BEGIN; LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
                for name, (_, writer) in connections.items():
                    writer.write(requests[name])
                # The worker reads connections in the order in which their bytes arrive.
                assert await asyncio.to_thread(responds, port) == 200
                process.send_signal(signal.SIGTERM)
                for name, (reader, writer) in connections.items():
                    head = await head_of(reader)
                    assert head.startswith(b"http/1.1 503 "), (name, head)
                    for header in (b"retry-after: ", b"connection: close", b"content-type: application/json"):
                        assert b"\r\n" + header in head, (name, head)
                    assert b"x-request-id: " in head, (name, head)
                    body = await reader.read()
                    if name != "head":
                        assert b"The service is stopping" in body, name
                        json.loads(body)
                    writer.close()
        assert process.wait(PATIENCE_SECONDS) == 0
    assert "Traceback" not in output.read_text()


@pytest.mark.slow
async def test_a_response_that_takes_longer_than_the_drain_time_is_broken_off(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    token = await new_token(database)
    log = json.dumps(LOG | {"fields": {"text": "x" * 200_000}}).encode()
    settings = PATIENT_SETTINGS | {"FACTORY_LOGS_DATABASE_URL": migrated_url, "FACTORY_LOGS_DRAIN_SECONDS": "1"}
    port = free_port()
    with serving(settings, port, tmp_path / "log") as process:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(token, b"[%b]" % b",".join([log] * 70)))
            assert (await response(reader)).startswith(b"http/1.1 201 ")
            writer.write(get(token, "/v1/factory_logs", "Accept: application/x-ndjson\r\n"))
            assert (await head_of(reader)).startswith(b"http/1.1 200 ")
            process.send_signal(signal.SIGTERM)
            while process.poll() is None:
                await asyncio.sleep(0.05)
            with suppress(ConnectionError):
                assert not (await reader.read()).endswith(b"0\r\n\r\n")
            writer.close()


@pytest.mark.slow
async def test_a_write_that_waits_for_its_commit_gets_its_response(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    request = post(await new_token(database), json.dumps(LOG).encode())
    settings = PATIENT_SETTINGS | {
        "FACTORY_LOGS_DATABASE_URL": migrated_url,
        "FACTORY_LOGS_COMMIT_TIMEOUT_SECONDS": str(PATIENCE_SECONDS),
        "FACTORY_LOGS_DRAIN_SECONDS": str(PATIENCE_SECONDS),
        "FACTORY_LOGS_TOKEN_CACHE_SECONDS": "3600",
    }
    port, output = free_port(), tmp_path / "log"
    with serving(settings, port, output) as process:
        async with asyncio.timeout(PATIENCE_SECONDS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)  # the second request needs no task, because the token is then cached
            assert (await response(reader)).startswith(b"http/1.1 201 ")
            async with locked(migrated_url) as watcher:
                writer.write(request)
                while not await watcher.fetchval(WAITING):
                    await asyncio.sleep(0.01)
                process.send_signal(signal.SIGTERM)
                while "Shutting down" not in output.read_text():
                    await asyncio.sleep(0.01)
            last = await response(reader)
            assert last.startswith(b"http/1.1 201 ")
            assert b"\r\nconnection: close\r\n" in last
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
        assert process.wait(PATIENCE_SECONDS) == 0

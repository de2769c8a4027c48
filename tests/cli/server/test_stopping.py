"""A stopping service first responds to the requests that it has received."""

import asyncio
import json
import signal
from pathlib import Path

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.factories import LOG
from tests.locking import locked
from tests.serving import PATIENT_SETTINGS, free_port, serving

PATIENCE_SECONDS = 60
WAITING = """
SELECT count(*) FROM pg_stat_activity
WHERE query LIKE '%INSERT INTO factory_logs%' AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""


async def response(reader: asyncio.StreamReader) -> bytes:
    """Return the head of the next response, and skip its body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r")[0]))
    return head


@pytest.mark.slow
async def test_a_write_that_waits_for_its_commit_gets_its_response(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    user = await UserRepository(database).create("jig", "Jig", None, Level.SYSTEM)
    token = await issue_token(database, user.user_id, expires_at=None)
    body = json.dumps(LOG).encode()
    request = (
        b"POST /v1/factory_logs HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        b"Authorization: Token token=%b\r\nContent-Length: %d\r\n\r\n%b" % (token.encode(), len(body), body)
    )
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

"""A real server in its own process, for the tests of devices: a client that blocks must not block the server."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.passwords import Passwords
from factory_logs.security.tokens import issue_token
from tests.client.servers import Server

MAX_BODY_BYTES = 200_000
Rows = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def shared_server(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "token_cache_seconds": 0.1, "max_body_bytes": MAX_BODY_BYTES, "tail_poll_seconds": 0.02,
        "catalog_seconds": 3600, "database_metrics_seconds": 3600,  # it still runs during tests that do not use it
    }  # fmt: skip
    server = Server(migrated_url, tmp_path_factory.mktemp("server") / "log", **settings)
    server.start()
    server.wait()
    yield server
    server.stop()


@pytest.fixture(scope="session")
async def password_hash() -> str:
    """The hash of `open sesame`, computed once because hashing takes longer than most tests."""
    return await Passwords().hash("open sesame")


@pytest.fixture
async def token(database: Database, password_hash: str) -> str:
    """Return a token of the user `jig-07`, whose password is `open sesame`."""
    user = await UserRepository(database).create("jig-07", "Jig 7", password_hash, Level.SYSTEM)
    return await issue_token(database, user.user_id, expires_at=None)


@pytest.fixture
def rows(migrated_url: str) -> Rows:
    """Return the rows of a statement, read directly from the database."""

    async def fetch(sql: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(migrated_url)
        try:
            return [dict(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return lambda sql: asyncio.run(fetch(sql))


@pytest.fixture
def numbers(rows: Rows) -> Callable[[], list[int]]:
    """Return `fields.n` of every stored log, in order of id."""
    return lambda: [row["n"] for row in rows("SELECT (fields->>'n')::int n FROM factory_logs ORDER BY factory_log_id")]

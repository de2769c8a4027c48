import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr
from sqlalchemy import text

from factory_logs.app import create_app
from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from factory_logs.security.passwords import Passwords
from factory_logs.security.tokens import hash_token, new_token
from factory_logs.settings import Settings


@asynccontextmanager
async def worker(url: str, **settings: object) -> AsyncIterator[FastAPI]:
    """Run one worker on the database of `url` with these settings."""
    app = create_app(Settings().model_copy(update={"database_url": SecretStr(url), **settings}))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="session")
async def password_hash() -> str:
    """The hash of `open sesame`, computed once because hashing takes longer than most tests."""
    return await Passwords().hash("open sesame")


@pytest.fixture(scope="module")
async def _shared_app(migrated_url: str, _no_settings_of_the_developer: None) -> AsyncIterator[FastAPI]:
    async with worker(migrated_url) as app:
        yield app


@pytest.fixture
def app(database: Database, _shared_app: FastAPI) -> FastAPI:
    """Return the worker of this module, on empty tables: starting a worker takes longer than most tests."""
    return _shared_app


@pytest.fixture
async def own_app(database: Database, migrated_url: str) -> AsyncIterator[FastAPI]:
    """Yield a worker for this test alone."""
    async with worker(migrated_url) as app:
        yield app


USERS = text("""
INSERT INTO users (username, display_name, permission, password_hash)
SELECT lower(level), initcap(level), level, :password_hash FROM unnest(CAST(:levels AS text[])) AS level
""")
TOKENS = text("""
INSERT INTO tokens (token_hash, user_id) SELECT hash, user_id
FROM unnest(CAST(:levels AS text[]), CAST(:hashes AS bytea[])) AS given (level, hash)
JOIN users ON username = lower(level)
""")
"""Two statements for all levels: most tests of the API begin with them."""


@pytest.fixture
async def tokens(database: Database, password_hash: str) -> dict[Level, str]:
    """Return a token of each level. Its user is named like the level, in lower case, with the password `open
    sesame`."""
    result = {level: new_token() for level in Level}
    levels, hashes = list(map(str, result)), [hash_token(token) for token in result.values()]
    async with database.begin() as connection:
        await connection.execute(USERS, {"levels": levels, "password_hash": password_hash})
        await connection.execute(TOKENS, {"levels": levels, "hashes": hashes})
    return result


def client_of(app: FastAPI, token: str | None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Token token={token}"} if token else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://logs.test", headers=headers)


@pytest.fixture
async def client(app: FastAPI, tokens: dict[Level, str]) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client with the level SYSTEM."""
    async with client_of(app, tokens[Level.SYSTEM]) as client:
        yield client


@pytest.fixture
async def anonymous(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, None) as client:
        yield client


async def ask(client: httpx.AsyncClient, **params: object) -> httpx.Response:
    """Return the response to `GET /v1/factory_logs`; a `q` that is not a string is sent as JSON."""
    if "q" in params and not isinstance(params["q"], str):
        params["q"] = json.dumps(params["q"])
    return await client.get("/v1/factory_logs", params=params)


def assert_error(response: httpx.Response, status: int) -> dict[str, object]:
    """Check the members that all errors have, and return the body."""
    body: dict[str, object] = response.json()
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert body.keys() <= {"message", "errors", "request_id"}
    assert isinstance(body["message"], str)
    assert body["message"]
    assert body["request_id"] == response.headers["x-request-id"]
    return body

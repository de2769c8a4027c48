from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI
from pydantic import SecretStr

from factory_logs.app import create_app
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.security.issuing import issue_token
from factory_logs.security.levels import Level
from factory_logs.security.passwords import Passwords
from factory_logs.settings import Settings


@asynccontextmanager
async def worker(url: str, **settings: object) -> AsyncIterator[FastAPI]:
    """One running worker on the database of `url` with some settings of its own."""
    app = create_app(Settings().model_copy(update={"database_url": SecretStr(url), **settings}))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture(scope="session")
async def password_hash() -> str:
    """Of `open sesame`; made once, as one hash takes longer than most tests."""
    return await Passwords().hash("open sesame")


@pytest.fixture
async def app(database: Database, migrated_url: str) -> AsyncIterator[FastAPI]:
    async with worker(migrated_url) as app:
        yield app


@pytest.fixture
async def tokens(database: Database, password_hash: str) -> dict[Level, str]:
    """A token of each level, of a user named like the level in lower case with the password `open sesame`."""
    users = UserRepository(database)
    result = {}
    for level in Level:
        user = await users.create(level.lower(), level.title(), password_hash, level)
        result[level] = await issue_token(database, user.user_id, expires_at=None)
    return result


def client_of(app: FastAPI, token: str | None) -> httpx.AsyncClient:
    headers = {"Authorization": f"Token token={token}"} if token else {}
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://logs.test", headers=headers)


@pytest.fixture
async def client(app: FastAPI, tokens: dict[Level, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A client that may do everything."""
    async with client_of(app, tokens[Level.SYSTEM]) as client:
        yield client


@pytest.fixture
async def anonymous(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, None) as client:
        yield client

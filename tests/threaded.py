"""A worker in a thread of the test process, with a real socket and a separate database."""

import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import NamedTuple

import asyncpg
import httpx
import uvicorn
from pydantic import SecretStr
from sqlalchemy import make_url

from factory_logs.app import create_app
from factory_logs.db.engine import Database
from factory_logs.db.migrations import upgrade
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from factory_logs.settings import Settings


class OwnDatabase(NamedTuple):
    """A database that no other test empties, and a token with the level SYSTEM."""

    url: str
    token: str


@asynccontextmanager
async def own_database(postgres_url: str, name: str) -> AsyncIterator[OwnDatabase]:
    """Create and migrate a database on the tests' server, with one user."""
    administrator = await asyncpg.connect(postgres_url)
    try:
        await administrator.execute(f"create database {name}")
        url = make_url(postgres_url).set(database=name).render_as_string(hide_password=False)
        await upgrade(url)
        database = Database(url, Settings())
        user = await UserRepository(database).create("grafana", "Grafana", None, Level.SYSTEM)
        token = await issue_token(database, user.user_id, expires_at=None)
        await database.dispose()
        yield OwnDatabase(url, token)
        await administrator.execute(f"drop database {name} with (force)")
    finally:
        await administrator.close()


@contextmanager
def client_in_thread(database: OwnDatabase) -> Iterator[httpx.Client]:
    """Return a client of the worker, with the token."""
    settings = Settings().model_copy(update={"database_url": SecretStr(database.url), "access_log": False})
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_level=logging.CRITICAL, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        address, headers = f"http://127.0.0.1:{listener.getsockname()[1]}", {"Authorization": f"Token {database.token}"}
        with httpx.Client(base_url=address, headers=headers, timeout=120) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()

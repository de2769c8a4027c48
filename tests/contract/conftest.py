from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.passwords import Passwords
from factory_logs.security.tokens import issue_token
from tests.serving import free_port, serving


class Service(NamedTuple):
    """The address of the service, and a token of level SYSTEM."""

    url: str
    token: str


@pytest.fixture
async def service(database: Database, migrated_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """Start a service on an empty database with one user: `ann`, password `correct horse battery staple`, SYSTEM."""
    password_hash = await Passwords().hash("correct horse battery staple")
    ann = await UserRepository(database).create("ann", "Ann", password_hash, Level.SYSTEM)
    token = await issue_token(database, ann.user_id, expires_at=None)
    port = free_port()
    with serving({"FACTORY_LOGS_DATABASE_URL": migrated_url}, port, tmp_path / "output"):
        yield Service(f"http://127.0.0.1:{port}", token)

"""One real PostgreSQL per test process, and one database in it that is emptied before each test."""

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from sqlalchemy import text

from factory_logs.db.engine import Database
from factory_logs.db.migrate import upgrade
from factory_logs.db.models import Base
from factory_logs.embedded import running
from factory_logs.settings import Settings


def pytest_addoption(parser: pytest.Parser) -> None:
    faults = parser.getgroup("faults", "the random sequence of faults (docs/faults.md)")
    faults.addoption("--fault-minutes", type=float, default=0.0, help="how long it runs; by default a few rounds")
    faults.addoption("--fault-seed", type=int, help="the seed of an earlier run")
    faults.addoption("--fault-report", help="a file for its table")
    drawn = parser.getgroup("stateful", "random sequences of calls (CONTRIBUTING.md)")
    drawn.addoption("--stateful-examples", type=int, help="how many are drawn; by default the same few each time")


def pytest_configure() -> None:
    """A shell lets what it runs in the background ignore Ctrl-C, which the processes of the tests must hear."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """Not structlog's own default, which draws a traceback with all local variables, at length."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_developer() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("FACTORY_LOGS_"):
                patch.delenv(name)
        yield


@contextmanager
def _short_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="flogs-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A test's own folder: a path with room for a socket's, which the server's user can reach when we are root."""
    with _short_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def shared_short_tmp() -> Iterator[Path]:
    """The same for what several tests share; each fixture makes a folder of its own name in it."""
    with _short_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def postgres_url(shared_short_tmp: Path) -> Iterator[str]:
    with running(shared_short_tmp / "data") as url:
        yield url


@pytest_asyncio.fixture(scope="session")
async def migrated_url(postgres_url: str) -> str:
    await upgrade(postgres_url)
    return postgres_url


@pytest.fixture
def settings(_no_settings_of_the_developer: None) -> Settings:
    return Settings()


@pytest_asyncio.fixture(scope="session")
async def _shared_database(migrated_url: str, _no_settings_of_the_developer: None) -> AsyncIterator[Database]:
    database = Database(migrated_url, Settings())
    yield database
    await database.dispose()


@pytest_asyncio.fixture
async def database(_shared_database: Database) -> Database:
    """The database with all tables empty and all ids beginning at 1."""
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    async with _shared_database.begin() as connection:
        await connection.execute(text(f"truncate {tables} restart identity cascade"))
    return _shared_database


pytest_plugins = ["tests.devices", "tests.influxd"]

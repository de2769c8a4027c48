"""One real PostgreSQL for each test process, with one database that is emptied before each test."""

import asyncio
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import asyncpg
import hypothesis
import pytest
import pytest_asyncio
import structlog
from sqlalchemy import make_url
from xdist.scheduler import LoadScopeScheduling

from factory_logs.db import citus_distribute
from factory_logs.db.engine import Database
from factory_logs.db.migrations import upgrade
from factory_logs.db.models import Base
from factory_logs.embedded import running
from factory_logs.settings import Settings
from tests import forked
from tests.locking import execute_again_after_deadlock
from tests.serving import PATIENT_SETTINGS

# A busy machine may be slow without an error in the code.
hypothesis.settings.register_profile(
    "any speed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.register_profile("fast lane", hypothesis.settings.get_profile("any speed"), max_examples=30)
hypothesis.settings.register_profile("thorough", hypothesis.settings.get_profile("any speed"), max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    faults = parser.getgroup("faults", "the random sequence of faults (docs/explanation/faults.md)")
    faults.addoption("--fault-minutes", type=float, default=0.0, help="how long it runs; by default a few rounds")
    faults.addoption("--fault-seed", type=int, help="the seed of an earlier run")
    faults.addoption("--fault-report", help="a file for its table")
    citus = parser.getgroup("citus", "crashes of a cluster's worker nodes (tests/citus)")
    citus.addoption("--citus-minutes", type=float, default=0.0, help="how long each runs; by default 20 seconds")
    fuzz = parser.getgroup("fuzz", "random requests over real sockets (tests/hostile/test_fuzz.py)")
    fuzz.addoption("--fuzz-inputs", type=int, help="how many are sent; by default 1,000")
    fuzz.addoption("--fuzz-seed", type=int, help="the seed of an earlier run")
    drawn = parser.getgroup("stateful", "random sequences of calls (CONTRIBUTING.md)")
    drawn.addoption("--stateful-examples", type=int, help="how many are drawn; by default the same few each time")
    influxql = parser.getgroup("influxql", "random statements (tests/influxql/test_against_influxd.py)")
    influxql.addoption("--influxql-statements", type=int, help="how many are drawn; by default 300")
    influxql.addoption("--influxql-seed", type=int, help="the seed they are drawn by; by default the same each time")


_SLOW_FIXTURES = frozenset(
    {"_port_and_process", "built", "disk", "examples", "influxd", "pair", "port", "roles", "service", "shared_server",
     "shared_url", "session_url", "site", "small"}
)  # fmt: skip
"""Fixtures that start processes in addition to the one PostgreSQL: a service, a second server, a build."""


_IN_ONE_PROCESS = ("tests/faults", "tests/web")


class ByModule(LoadScopeScheduling):
    """With `-n`, all tests of a module run in one test process, because they share what the module starts.

    The tests in a browser share a service, and so do those in `tests/faults`: each of these folders runs in one.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        folder = path.rpartition("/")[0]
        return folder if folder in _IN_ONE_PROCESS else path


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByModule:
    config.option.loadscopereorder = False  # pytest_collection_modifyitems has put the slow modules first
    return ByModule(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start a service or kill a process as slow; other slow tests have the mark in their source.

    The folders that run in one process come first, and then modules with slow tests: one that began last would keep its
    process busy long after the others.
    """
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        serves = {"server", "migrated_url"} <= fixtures  # not the scripted one of tests/client/test_sender.py
        if serves or fixtures & _SLOW_FIXTURES or item.get_closest_marker("faults"):
            item.add_marker(pytest.mark.slow)
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (not item.nodeid.startswith(_IN_ONE_PROCESS), item.path not in slow))


def pytest_configure(config: pytest.Config) -> None:
    """A shell makes its background processes ignore Ctrl-C, but the processes of the tests must receive it."""
    if not config.getoption("hypothesis_profile", None):
        hypothesis.settings.load_profile("fast lane" if config.option.markexpr == "not slow" else "any speed")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.disable()  # until the end of the collection, which makes much that stays


def pytest_collection_finish() -> None:
    """Keep the modules and the list of tests, which stay, out of each garbage collection of the tests."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _plain_logs() -> None:
    """Replace structlog's default, which prints long tracebacks with all local variables."""
    structlog.configure(processors=[structlog.processors.format_exc_info, structlog.processors.KeyValueRenderer()])


@pytest.fixture(scope="session", autouse=True)
def _no_settings_of_the_developer() -> Iterator[None]:
    """Leave only settings that wait longer than the defaults for PostgreSQL."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith("FACTORY_LOGS_"):
                patch.delenv(name)
        for name, value in PATIENT_SETTINGS.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session", autouse=True)
def _launcher() -> Iterator[None]:
    """Stop the process that services are forked from."""
    yield
    forked.launcher.close()


@pytest.fixture(scope="session", autouse=True)
def _one_certificate_authority() -> Iterator[None]:
    """Let every HTTP client, also in processes that tests start, load one certificate: those of certifi take 50 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(Path(__file__).parent / "db" / "tls" / "other.crt"))
        yield


@pytest.fixture(scope="session", autouse=True)
def _cheap_password_hashes() -> Iterator[None]:
    """Hash passwords with little cost in this process too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("factory_logs.security.passwords.PasswordHasher", forked.CheapPasswordHasher)
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
    """Return a folder for one test. Its path is short enough for a socket, and the server's user can reach it if we are
    root."""
    with _short_folder() as folder:
        yield folder


@pytest.fixture(scope="session")
def shared_short_tmp() -> Iterator[Path]:
    """The same for several tests; each fixture creates a folder with its own name in it."""
    with _short_folder() as folder:
        yield folder


CITUS_URL = os.environ.get("FACTORY_LOGS_TEST_CITUS_URL")
"""The coordinator of a Citus cluster. Its database is emptied. With it, the tests run on the cluster
(CONTRIBUTING.md)."""
ONE_SNAPSHOT = pytest.mark.skipif(
    CITUS_URL is not None,
    reason="a cluster has no snapshot of all nodes; tests/citus/test_counts.py compares while no log is written",
)
"""Marks tests that compare two statements of a snapshot while others write."""
TEST_SHARDS = 4
"""The number of shards: small, because each test empties them, but high enough to give a node several shards."""
SERVER_MEMORY_BYTES = 4 * 2**30
"""The memory for which PostgreSQL is configured. It is fixed, because the planner's choices depend on it."""


@pytest.fixture(scope="session")
def postgres_url(shared_short_tmp: Path) -> Iterator[str]:
    """The server of this test process, which need not survive a power cut: its commits do not wait for the disk.

    Tests of durability start their own servers (`tests/faults`, `tests/embedded`).
    """
    if CITUS_URL is not None:
        yield CITUS_URL
        return
    with running(shared_short_tmp / "data", memory_bytes=SERVER_MEMORY_BYTES) as url:
        asyncio.run(_without_fsync(url))
        yield url


async def _without_fsync(url: str) -> None:
    connection = await asyncpg.connect(url)
    for setting in ("fsync", "full_page_writes"):
        await connection.execute(f"alter system set {setting} to off")
    await connection.execute("select pg_reload_conf()")
    await connection.close()


@pytest_asyncio.fixture(scope="session")
async def migrated_url(postgres_url: str) -> str:
    await upgrade(postgres_url)
    if CITUS_URL is not None:
        await _distribute(postgres_url)
    return postgres_url


async def _distribute(url: str) -> None:
    database = Database(url, Settings())
    connection = await database.connect_raw()
    # For tests that insert their logs by SQL: the few ids of a test have the shard key 0.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(citus_distribute, "SHARD_KEY_COLUMN", f"{citus_distribute.SHARD_KEY_COLUMN} DEFAULT 0")
        async for _ in citus_distribute.Distributor(connection, TEST_SHARDS).run():
            pass
    sequence = "factory_logs_factory_log_id_seq"
    await connection.execute(f"ALTER TABLE factory_logs ALTER factory_log_id SET DEFAULT nextval('{sequence}')")
    # For connections of the tests, on which asyncpg would take seconds to look up a type (db/citus.py).
    await connection.execute(f'ALTER DATABASE "{make_url(url).database}" SET citus.override_table_visibility TO off')
    await connection.close()
    await database.dispose()


def as_role(url: str, role: str) -> str:
    """Return the URL of the same database for another role."""
    return make_url(url).set(username=role).render_as_string(hide_password=False)


def with_parameters(url: str, parameters: str) -> str:
    """Return the URL of the same database with these parameters too."""
    return f"{url}{'&' if '?' in url else '?'}{parameters}"


@pytest.fixture
def settings(_no_settings_of_the_developer: None) -> Settings:
    return Settings()


@pytest_asyncio.fixture(scope="session")
async def _shared_database(migrated_url: str, _no_settings_of_the_developer: None) -> AsyncIterator[Database]:
    database = Database(migrated_url, Settings())
    yield database
    await database.dispose()


_OTHERS = [table for table in reversed(Base.metadata.sorted_tables) if table.name not in ("factory_logs", "repairs")]
_IDENTITIES = [(column.table.name, column.name) for table in _OTHERS for column in table.columns if column.identity]
EMPTY_ALL_TABLES = f"""
do $$ begin
    if exists (select 1 from repairs) or pg_sequence_last_value('repairs_repair_id_seq') is not null
    then truncate factory_logs, repairs restart identity;
    elsif exists (select 1 from factory_logs) or pg_sequence_last_value('factory_logs_factory_log_id_seq') is not null
    then truncate factory_logs restart identity;
    end if;
    {" ".join(f"delete from {table.name};" for table in _OTHERS)}
    {" ".join(f"perform setval(pg_get_serial_sequence('{t}', '{c}'), 1, false);" for t, c in _IDENTITIES)}
end $$
"""
"""Empties the tables. Truncating creates new files for each table and index, which takes longer than most tests.

So only the tables of records are truncated, each only if it was written to; the logs refer to the repairs, so they are
truncated with them. From the new files, a running service detects that its cached results are no longer valid.
"""


@pytest_asyncio.fixture
async def database(_shared_database: Database) -> Database:
    """Yield the database with empty tables and ids that start at 1."""
    await execute_again_after_deadlock(_shared_database, EMPTY_ALL_TABLES)
    return _shared_database


pytest_plugins = ["tests.devices", "tests.influxd"]

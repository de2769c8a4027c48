"""Parameters that every connection sets, databases that are refused, and reasons for a failed connection."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url, text

from factory_logs.db import migrations
from factory_logs.db.connecting import SESSION, connect_once, destination
from factory_logs.db.engine import Database, Pool
from factory_logs.db.errors import UNREACHABLE
from factory_logs.errors import DatabaseConnectError, UnsuitableDatabaseError
from factory_logs.settings import Settings
from tests.conftest import with_parameters
from tests.faults.postgres import Cluster

HOSTILE = {
    "TimeZone": "Asia/Shanghai",
    "DateStyle": "German, DMY",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "client_encoding": "LATIN1",
    "standard_conforming_strings": "off",
    "transform_null_equals": "on",
    "gin_fuzzy_search_limit": "1",
    "default_transaction_isolation": "serializable",
    "idle_in_transaction_session_timeout": "1min",
    "idle_session_timeout": "1h",
    "transaction_timeout": "1min",
}
OTHERS = {
    "synchronous_commit": "off",
    "statement_timeout": "1min",
    "jit": "on",
    "plan_cache_mode": "force_generic_plan",
}

Show = Callable[[str], Awaitable[object]]


@pytest_asyncio.fixture(params=["database", "role"])
async def hostile_url(request: pytest.FixtureRequest, migrated_url: str) -> AsyncIterator[str]:
    """Yield a database with tables whose administrator has set other parameters for it or for its role."""
    connection = await asyncpg.connect(migrated_url)
    await connection.execute("CREATE ROLE hostile LOGIN SUPERUSER")
    await connection.execute("CREATE DATABASE hostile TEMPLATE template0 ENCODING 'UTF8'")
    for name, value in {**HOSTILE, **OTHERS}.items():
        await connection.execute(f"ALTER {request.param.upper()} hostile SET {name} = '{value}'")
    url = make_url(migrated_url).set(username="hostile", database="hostile").render_as_string(hide_password=False)
    yield url.replace("+asyncpg", "")
    await connection.execute("DROP DATABASE hostile WITH (FORCE)")
    await connection.execute("DROP ROLE hostile")
    await connection.close()


def test_each_parameter_of_a_connection_is_tested_with_a_different_default() -> None:
    assert HOSTILE.keys() == SESSION.keys()


async def test_every_connection_has_the_required_settings(hostile_url: str, settings: Settings) -> None:
    database = Database(hostile_url, settings)

    async def check(show: Show) -> None:
        assert {name: await show(name) for name in SESSION} == SESSION
        assert await show("synchronous_commit") == "on"
        assert await show("statement_timeout") == "30s"
        assert await show("jit") == "off"

    for pool in Pool:
        async with database.connect(pool) as connection:
            await check(lambda name, connection=connection: connection.scalar(text(f"show {name}")))
            assert await connection.scalar(text("show plan_cache_mode")) == "force_custom_plan"
    async with database.connect_reader() as reader:
        await check(lambda name: reader.scalar(text(f"show {name}")))
    raw = await database.connect_raw()
    await check(lambda name: raw.fetchval(f"show {name}"))
    await raw.close()
    await database.dispose()


async def test_migrations_run_with_any_settings_of_the_database_or_role(hostile_url: str, settings: Settings) -> None:
    await migrations.upgrade(hostile_url)
    database = Database(hostile_url, settings)
    assert await migrations.current(database) == migrations.head()
    await database.dispose()


@pytest.mark.parametrize("commit", ["local", "remote_write", "on", "remote_apply"])
async def test_the_operator_may_choose_a_stricter_durability(migrated_url: str, commit: str) -> None:
    connection = await connect_once(with_parameters(migrated_url, f"synchronous_commit={commit}"), 5)
    assert await connection.fetchval("show synchronous_commit") == commit
    await connection.close()


async def test_an_open_connection_stays_durable_if_the_configuration_is_changed(
    migrated_url: str,
) -> None:
    administrator = await asyncpg.connect(migrated_url)
    connection = await connect_once(migrated_url, 5)
    try:
        await administrator.execute("ALTER SYSTEM SET synchronous_commit TO off")
        await administrator.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(60):
            while await administrator.fetchval("show synchronous_commit") != "off":
                await asyncio.sleep(0.01)
            # A session reads the new configuration before its next statement.
            assert await connection.fetchval("show synchronous_commit") == "on"
            assert await connection.fetchval("show synchronous_commit") == "on"
    finally:
        await administrator.execute("ALTER SYSTEM RESET synchronous_commit")
        await administrator.execute("SELECT pg_reload_conf()")
        await administrator.close()
        await connection.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_an_encoding_that_cannot_store_every_text_is_refused_with_the_remedy(
    migrated_url: str, encoding: str, settings: Settings
) -> None:
    connection = await asyncpg.connect(migrated_url)
    await connection.execute(f"CREATE DATABASE other ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    database = Database(migrated_url.replace("/factory_logs?", "/other?"), settings)
    try:
        for refused in (database.check(), database.ping(), migrations.upgrade(database.dsn)):
            with pytest.raises(UnsuitableDatabaseError, match="cannot be reached") as error:
                await refused
            assert f"the encoding {encoding}" in error.value.reason
            assert "ENCODING 'UTF8'" in error.value.reason
    finally:
        await database.dispose()
        await connection.execute("DROP DATABASE other WITH (FORCE)")
        await connection.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://ann:secret@db.example:5433/logs", "db.example:5433, database logs, user ann"),
        ("postgresql://ann@db.example/logs", "db.example, port 5432, database logs, user ann"),
        ("postgresql://ann:p%40ss@a:1,b:2/logs?sslmode=require", "a:1,b:2, database logs, user ann"),
        ("postgresql:///logs?host=/run/pg&port=5544&user=ann", "/run/pg, port 5544, database logs, user ann"),
        ("postgresql://ann@/?host=a,b", "a,b, port 5432, database ann, user ann"),
        ("postgresql://ann@db.example?sslmode=require", "db.example, port 5432, database ann, user ann"),
        ("postgresql://ann@[::1]:5433/logs", "[::1]:5433, database logs, user ann"),
        ("postgresql:///", "its local socket, port 5432, database of this process, user of this process"),
    ],
)
def test_the_destination_of_a_url_is_shown_without_its_password(
    url: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PGHOST", "PGPORT", "PGUSER", "PGDATABASE"):
        monkeypatch.delenv(name, raising=False)
    assert destination(url) == words


async def reason(url: str, seconds: float = 5.0) -> str:
    with pytest.raises(DatabaseConnectError) as error:
        await connect_once(url, seconds)
    assert error.value.message == UNREACHABLE  # which clients receive, without internal details
    assert error.value.reason.startswith("cannot connect to PostgreSQL at ")
    return error.value.reason


async def test_a_refused_connection_has_an_error_with_address_and_reason() -> None:
    found = await reason("postgresql://ann:secret@127.0.0.1:1/logs")
    assert found.endswith("127.0.0.1:1, database logs, user ann: Connection refused")


async def test_an_unknown_host_is_named() -> None:
    found = await reason("postgresql://ann@no-such-host.invalid/logs")
    assert "no-such-host.invalid, port 5432" in found
    assert "not known" in found or "name resolution" in found


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
async def test_an_invalid_host_is_named(host: str) -> None:
    assert host in await reason(f"postgresql://ann@{host}/logs")


async def test_a_silent_server_is_named_with_the_time_waited() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        found = await reason(f"postgresql://ann@127.0.0.1:{port}/logs?sslmode=disable", 0.2)
    assert found.endswith("no response within 0.2 s")


async def test_a_missing_database_has_postgresqls_message(migrated_url: str) -> None:
    found = await reason(migrated_url.replace("/factory_logs?", "/nothing?"))
    assert found.endswith('database nothing, user factory_logs: database "nothing" does not exist')


async def test_a_missing_role_has_postgresqls_message(migrated_url: str) -> None:
    found = await reason(migrated_url.replace("//factory_logs@", "//nobody@"))
    assert "user nobody: " in found
    assert '"nobody"' in found.partition("user nobody: ")[2]


async def test_a_role_that_may_not_connect_is_unavailable_with_postgresqls_message(
    migrated_url: str, settings: Settings
) -> None:
    connection = await asyncpg.connect(migrated_url)
    await connection.execute("CREATE DATABASE closed ALLOW_CONNECTIONS false")
    database = Database(migrated_url.replace("/factory_logs?", "/closed?"), settings)
    try:
        with pytest.raises(DatabaseConnectError) as error:
            await database.ping()
        assert "not currently accepting connections" in error.value.reason
    finally:
        await database.dispose()
        await connection.execute("DROP DATABASE closed")
        await connection.close()


async def test_a_missing_certificate_is_named(migrated_url: str) -> None:
    found = await reason("postgresql://ann@127.0.0.1:1/logs?sslmode=verify-full&sslrootcert=/nowhere/root.crt")
    assert "/nowhere/root.crt" in found or "No such file" in found or os.strerror(2) in found


@pytest.fixture
def strict_server(short_tmp: Path) -> Iterator[Cluster]:
    """Start a server that requires passwords. No user has one."""
    cluster = Cluster(short_tmp / "strict")
    cluster.create()
    (cluster.folder / "pg_hba.conf").write_text("host all all 127.0.0.1/32 scram-sha-256\n")
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.mark.slow
async def test_a_wrong_password_has_postgresqls_message_without_the_password(strict_server: Cluster) -> None:
    found = await reason(strict_server.url.replace("@", ":not-the-password@"))
    assert found.endswith('password authentication failed for user "factory_logs"')
    assert "not-the-password" not in found

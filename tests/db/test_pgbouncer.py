"""pgbouncer in front of PostgreSQL: session pooling works, transaction pooling is refused. Runs if pgbouncer is
installed."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from factory_logs.db import migrations
from factory_logs.db.connecting import SESSION, connect_once
from factory_logs.db.engine import Database
from factory_logs.embedded.server import DATABASE
from factory_logs.errors import DatabaseConnectError, UnsuitableDatabaseError
from factory_logs.permissions import Level
from factory_logs.settings import Settings
from tests import forked
from tests.api.conftest import client_of, password_hash, tokens, worker
from tests.serving import free_port, serving

PGBOUNCER = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
LOG = {"app_name": "jig", "timestamp": "2024-01-31T13:45:00Z"}
pytestmark = pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (apt-get install pgbouncer)")

__all__ = ["password_hash", "tokens"]


@contextmanager
def _running(folder: Path, postgres_url: str, pool_mode: str, **options: object) -> Iterator[str]:
    port = free_port()
    socket_folder = parse_qs(urlsplit(postgres_url).query)["host"][0]
    users = folder / "users.txt"
    users.write_text(f'"{DATABASE}" ""\n')
    lines = {
        "listen_addr": "127.0.0.1", "listen_port": port, "unix_socket_dir": "", "auth_type": "trust",
        "auth_file": users, "pool_mode": pool_mode, "default_pool_size": 30, **options,
    }  # fmt: skip
    file = folder / "pgbouncer.ini"
    settings = "\n".join(f"{name} = {value}" for name, value in lines.items())
    file.write_text(f"[databases]\n{DATABASE} = host={socket_folder} dbname={DATABASE}\n[pgbouncer]\n{settings}\n")
    assert PGBOUNCER is not None
    # pgbouncer does not run as root; the user of the embedded server can reach its socket.
    as_user = ["-u", Path(socket_folder).owner()] if os.geteuid() == 0 else []
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen([PGBOUNCER, *as_user, str(file)], stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(port, process, folder / "log")
        yield f"postgresql://{DATABASE}@127.0.0.1:{port}/{DATABASE}?sslmode=disable"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(300)


def _wait(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(log.read_text())


@pytest.fixture
def session_url(short_tmp: Path, migrated_url: str) -> Iterator[str]:
    with _running(short_tmp, migrated_url, "session") as url:
        yield url


@pytest.fixture(params=["transaction", "statement"])
def shared_url(request: pytest.FixtureRequest, short_tmp: Path, migrated_url: str) -> Iterator[str]:
    with _running(short_tmp, migrated_url, request.param) as url:
        yield url


async def test_with_session_pooling_every_connection_has_the_required_settings(session_url: str) -> None:
    connection = await connect_once(session_url, 10)
    assert {name: await connection.fetchval(f"show {name}") for name in SESSION} == SESSION
    await connection.close()
    # pgbouncer resets a server process and gives it to the next client.
    plain = await asyncpg.connect(session_url)
    assert await plain.fetchval("show idle_session_timeout") == "0"
    await plain.close()


async def test_with_session_pooling_the_service_and_migrations_work(
    session_url: str, database: Database, tokens: dict[Level, str]
) -> None:
    await migrations.upgrade(session_url)
    async with worker(session_url) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        stored = await asyncio.gather(*(client.post("/v1/factory_logs", json=LOG) for _ in range(20)))
        assert {response.status_code for response in stored} == {201}
        assert (await client.post("/v1/factory_logs", json=[LOG] * 3)).status_code == 201
        assert (await client.get("/v1/factory_logs/1")).status_code == 200
        assert (await client.get("/v1/factory_logs")).json()["num_results"] == 23
        exported = await client.get("/v1/factory_logs", headers={"Accept": "application/x-ndjson"})
        assert len(exported.text.splitlines()) == 23
        assert (await client.get("/v1/factory_logs/stats")).json()["buckets"][0]["count"] == 23
        assert (await client.get("/readyz")).status_code == 200


async def test_transaction_pooling_is_refused_with_the_required_setting(shared_url: str, settings: Settings) -> None:
    database = Database(shared_url, settings)
    for refused in (database.check, partial(migrations.upgrade, shared_url)):
        with pytest.raises(UnsuitableDatabaseError) as error:
            await refused()
        assert "pool_mode = session" in error.value.reason
    with pytest.raises(UnsuitableDatabaseError):
        async with worker(shared_url):
            pass
    await database.dispose()


@pytest.mark.parametrize("command", ["migrate", "serve", "export"])
def test_with_transaction_pooling_each_command_names_the_required_setting(shared_url: str, command: str) -> None:
    port = ["--port", str(free_port())] if command == "serve" else []
    environment = os.environ | {"FACTORY_LOGS_DATABASE_URL": shared_url}
    ended = forked.run(command, *port, environment=environment)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: there is a pooler")
    assert "pool_mode = session" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


async def test_an_error_of_pgbouncer_is_reported_with_its_message(session_url: str) -> None:
    with pytest.raises(DatabaseConnectError) as error:
        await connect_once(f"{session_url}&statement_timeout=1000", 10)
    assert "unsupported startup parameter: statement_timeout" in error.value.reason


async def test_a_database_unknown_to_pgbouncer_is_reported_with_its_message(session_url: str) -> None:
    with pytest.raises(DatabaseConnectError) as error:
        await connect_once(session_url.replace(f"/{DATABASE}?", "/nothing?"), 10)
    assert "no such database: nothing" in error.value.reason


def test_the_documented_session_pooling_works(
    session_url: str, database: Database, tokens: dict[Level, str], tmp_path: Path
) -> None:
    port = free_port()
    with serving({"FACTORY_LOGS_DATABASE_URL": session_url}, port, tmp_path / "log"):
        headers = {"Authorization": f"Token token={tokens[Level.SYSTEM]}"}
        stored = httpx.post(f"http://127.0.0.1:{port}/v1/factory_logs", json=LOG, headers=headers, timeout=60)
        assert stored.status_code == 201, stored.text

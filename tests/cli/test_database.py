"""Which database a command uses."""

import os
import subprocess
from pathlib import Path

import pytest

from tests import forked
from tests.cli.conftest import Query, Run

IMEI = "352099001761481"
NEED_A_DATABASE = {
    "users create": ["users", "create", "ann", "--permission", "SYSTEM"],
    "users list": ["users", "list"],
    "tokens issue": ["tokens", "issue", "admin"],
    "tokens list": ["tokens", "list"],
    "repairs add": ["repairs", "add", "--product-imei", IMEI],
    "import": ["import", "-", "--format", "ndjson"],
    "import lp": ["import", "-", "--format", "lp"],
    "export": ["export"],
    "retention": ["retention", "--older-than", "400d"],
    "backup": ["backup", "x.backup"],
}


def command(folder: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return forked.run(*arguments, environment=os.environ | settings, stdin="open sesame\n", cwd=folder)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", NEED_A_DATABASE.values(), ids=NEED_A_DATABASE)
def test_a_missing_database_is_an_error_and_is_not_created(short_tmp: Path, arguments: list[str]) -> None:
    failed = command(short_tmp, *arguments)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"error: there is no embedded database in {short_tmp / 'data'}. ")
    for name in ("FACTORY_LOGS_DATA_DIR", "FACTORY_LOGS_DATABASE_URL", "factory-logs serve"):
        assert name in failed.stderr
    assert list(short_tmp.iterdir()) == []


@pytest.mark.slow
def test_migrate_creates_a_database_that_other_commands_use_from_anywhere(short_tmp: Path) -> None:
    home, elsewhere = short_tmp / "home", short_tmp / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    migrated = command(home, "migrate")
    assert migrated.returncode == 0, migrated.stderr
    assert command(home, "users", "create", "ann", "--permission", "SYSTEM").returncode == 0
    there = command(elsewhere, "users", "list", FACTORY_LOGS_DATA_DIR="../home/data")
    assert (there.returncode, "ann" in there.stdout) == (0, True), there.stderr
    failed = command(elsewhere, "users", "list", FACTORY_LOGS_DATA_DIR="../home/dta")
    assert failed.returncode == 1
    assert str(home / "dta") in failed.stderr
    assert list(elsewhere.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["migrate"], ["serve", "--port", "0"], ["export"], ["tokens", "issue", "jig"]])
def test_an_unreachable_database_is_named_with_the_reason(tmp_path: Path, arguments: list[str]) -> None:
    failed = command(tmp_path, *arguments, FACTORY_LOGS_DATABASE_URL="postgresql://ann:secret@127.0.0.1:1/logs")
    assert failed.returncode == 1
    assert failed.stderr == (
        "error: cannot connect to PostgreSQL at 127.0.0.1:1, database logs, user ann: Connection refused\n"
    )


@pytest.mark.slow
def test_an_encoding_that_cannot_store_every_text_is_refused_with_the_remedy(
    tmp_path: Path, migrated_url: str, query: Query
) -> None:
    query("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    url = migrated_url.replace("/factory_logs?", "/latin?")
    try:
        for arguments in (["migrate"], ["serve", "--port", "0"], ["export"]):
            failed = command(tmp_path, *arguments, FACTORY_LOGS_DATABASE_URL=url)
            assert failed.returncode == 1
            assert failed.stderr.startswith("error: the database has the encoding LATIN1")
            assert "ENCODING 'UTF8'" in failed.stderr
    finally:
        query("DROP DATABASE latin WITH (FORCE)")


@pytest.mark.parametrize(
    "url",
    ["mysql://u:pass-word@h/x", "postgresql://u:pass-word@h:nonsense/x", "postgresql://u:pass-word@127.0.0.1:1/x"],
)
def test_no_password_of_the_database_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("FACTORY_LOGS_DATABASE_URL", url)
    result = run("users", "list")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert "pass-word" not in result.output


def test_an_invalid_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_LOGS_PORT", "high")
    result = run("users", "list")
    assert result.exit_code == 1
    assert "FACTORY_LOGS_PORT" in result.stderr

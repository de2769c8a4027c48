"""Audit lines: successful and refused logins, and changes to users and tokens."""

import json
from pathlib import Path

import pytest

from factory_logs.audit import Audit
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.passwords import Passwords
from tests.api.conftest import client_of, worker


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


async def test_every_login_leaves_a_line_with_its_outcome_and_no_password(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "audit.log"
    async with (
        worker(migrated_url, audit_file=file, login_max_failures=1) as app,
        client_of(app, None) as client,
    ):
        await client.post("/v1/auth/login", json={"username": "ann", "password": "not-to-be-told"})
        await client.post("/v1/auth/login", json={"username": "ann", "password": "not-to-be-told"})
    assert [line["action"] for line in lines(file)] == ["login refused", "login throttled"]
    assert all(line["user"] == "ann" and line["address"] == "127.0.0.1" for line in lines(file))
    assert "not-to-be-told" not in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o600


async def test_a_successful_login_has_a_line_too(database: Database, migrated_url: str, tmp_path: Path) -> None:
    file = tmp_path / "audit.log"
    await UserRepository(database).create("bob", "Bob", await Passwords().hash("open sesame"), Level.FACTORY)
    async with worker(migrated_url, audit_file=file) as app, client_of(app, None) as client:
        response = await client.post("/v1/auth/login", json={"username": "bob", "password": "open sesame"})
    token = response.json()["message"]["login_successful"]["API_token"]
    (line,) = lines(file)
    assert (line["event"], line["action"], line["user"]) == ("audit", "login", "bob")
    assert token not in file.read_text()


def test_without_a_file_the_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Audit(None).note("login", user="ann\n{\ud800")
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["user"] == "ann\n{?"


def test_a_file_that_cannot_be_written_prevents_no_login(tmp_path: Path) -> None:
    Audit(tmp_path / "none" / "audit.log").note("login", user="ann")


def test_on_a_terminal_a_line_is_text_that_a_caller_cannot_forge(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    Audit(None).note("login refused", user="ann", address="127.0.0.1")
    Audit(None).note("login refused", user='bob by=root\x1b[2J\n"é', address="::1")
    assert capsys.readouterr().err.splitlines() == [
        "audit: login refused: user=ann address=127.0.0.1",
        'audit: login refused: user="bob by=root\\u001b[2J\\n\\"\\u00e9" address=::1',
    ]

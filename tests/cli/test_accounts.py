import getpass
import hashlib
import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from factory_logs.cli.durations import parse_duration
from factory_logs.cli.reporting import CommandError
from tests.cli.conftest import Query, Run


def make_user(run: Run, name: str = "jig-07") -> None:
    assert run("users", "create", name, "--permission", "SYSTEM", stdin="secret\n").exit_code == 0


def stored(query: Query, token: str) -> dict[str, object]:
    digest = hashlib.sha256(token.encode()).hexdigest()
    (row,) = query(f"select *, expires_at - created_at as life from tokens where token_hash = '\\x{digest}'")
    return row


def test_a_user_is_created_once(run: Run, query: Query) -> None:
    first = run("users", "create", "ann", "--permission", "system", "--display-name", "Ann [A]", stdin="open sesame\n")
    assert (first.exit_code, first.stdout) == (0, "")
    assert "open sesame" not in first.stderr
    (row,) = query("select * from users")
    assert (row["username"], row["display_name"], row["permission"]) == ("ann", "Ann [A]", "SYSTEM")
    assert row["password_hash"].startswith("$argon2id$")

    again = run("users", "create", "ann", "--permission", "OVERVIEW", stdin="other\n")
    assert again.exit_code == 1
    assert again.stderr == "error: There is a user 'ann' already.\n"

    listed = run("users", "list")
    assert listed.exit_code == 0
    assert "Ann [A]" in listed.stdout


@pytest.mark.parametrize("stdin", ["", "\n"])
def test_an_empty_password_is_refused(run: Run, query: Query, stdin: str) -> None:
    result = run("users", "create", "ann", "--permission", "SYSTEM", stdin=stdin)
    assert (result.exit_code, result.stderr) == (1, "error: the password is empty\n")
    assert query("select 1 from users") == []


@pytest.mark.parametrize(
    ("arguments", "life", "idle"),
    [
        ([], timedelta(hours=3), 3 * 3600),
        (["--expires-in", "90d"], timedelta(days=90), None),
        (["--expires-in", "never"], None, None),
    ],
)
def test_a_token_lives_as_long_as_asked(
    run: Run, query: Query, arguments: list[str], life: timedelta | None, idle: int | None
) -> None:
    make_user(run)
    result = run("tokens", "issue", "jig-07", *arguments)
    assert result.exit_code == 0
    token = result.stdout.removesuffix("\n")
    assert len(token) == 64
    row = stored(query, token)
    assert row["idle_seconds"] == idle
    if life is None:
        assert row["life"] is None
    else:
        assert isinstance(row["life"], timedelta)
        assert abs(row["life"] - life) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nobody"], "there is no user 'nobody'"),
        (["jig-07", "--expires-in", "soon"], "no duration"),
        (["jig-07", "--expires-in", "0s"], "no duration"),
        (["jig-07", "--expires-in", "99999999999w"], "too long"),
    ],
)
def test_what_cannot_be_issued_is_an_error(run: Run, arguments: list[str], message: str) -> None:
    make_user(run)
    result = run("tokens", "issue", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_tokens_are_revoked_one_or_all(run: Run, query: Query) -> None:
    make_user(run)
    tokens = [run("tokens", "issue", "jig-07").stdout.strip() for _ in range(4)]
    assert run("tokens", "revoke", tokens[0]).exit_code == 0
    assert run("tokens", "revoke", "-", stdin=f"{tokens[1]}\n").exit_code == 0
    assert [stored(query, token)["revoked_at"] is None for token in tokens] == [False, False, True, True]
    again = run("tokens", "revoke", tokens[0])
    assert again.exit_code == 1
    assert tokens[0] not in again.stderr
    everything = run("tokens", "revoke", "--user", "jig-07")
    assert (everything.exit_code, everything.stderr.splitlines()[-1]) == (0, "Revoked 2 tokens")
    assert run("tokens", "revoke").exit_code == 1


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("12h", 43200), ("90d", 7776000), ("2w", 1209600)]
)
def test_durations(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "-1h", "1.5h", "1 h", "1h30m", "١h", "0d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(CommandError):
        parse_duration(text)


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


def test_a_wrong_setting_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACTORY_LOGS_PORT", "high")
    result = run("users", "list")
    assert result.exit_code == 1
    assert "FACTORY_LOGS_PORT" in result.stderr


def test_without_the_server_extra_the_command_says_what_to_install() -> None:
    script = (
        "import sys\n"
        "for name in ('sqlalchemy', 'asyncpg', 'alembic', 'fastapi', 'uvicorn', 'pydantic_settings', 'argon2'):\n"
        "    sys.modules[name] = None\n"
        "from factory_logs.cli import main\n"
        "main()\n"
    )
    for arguments in (["users", "list"], ["serve"], ["import", "x.csv"], ["export"], ["repairs", "add"]):
        if arguments[0] == "repairs":
            arguments = [*arguments, "--product-imei", "352099001761481"]
        result = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
        assert result.returncode == 1, result.stderr
        assert result.stderr == "error: this command needs the server: pip install 'factory-logs[server]'\n"


def test_what_is_changed_on_the_command_line_is_told_in_the_audit_file_without_the_secrets(
    run: Run, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "audit.log"
    monkeypatch.setenv("FACTORY_LOGS_AUDIT_FILE", str(file))
    make_user(run)
    token = run("tokens", "issue", "jig-07", "--expires-in", "90d").stdout.strip()
    run("tokens", "revoke", "-", stdin=f"{token}\n")
    run("tokens", "revoke", "--user", "jig-07")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["action"] for line in lines] == ["user created", "token issued", "tokens revoked", "tokens revoked"]
    assert {line["by"] for line in lines} == {getpass.getuser()}
    assert lines[1]["token"] == lines[2]["token"] == hashlib.sha256(token.encode()).hexdigest()[:16]
    assert (lines[0]["permission"], lines[1]["expires_in"], lines[3]["tokens"]) == ("SYSTEM", "90d", 0)
    assert "secret" not in file.read_text()
    assert token not in file.read_text()

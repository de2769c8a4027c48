import getpass
import hashlib
import json
from pathlib import Path

import pytest

from tests.cli.conftest import Query, Run
from tests.cli.factories import make_user


@pytest.mark.slow
def test_each_change_of_a_user_has_an_audit_line(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "audit.log"
    make_user(run)
    run("tokens", "issue", "jig-07")
    monkeypatch.setenv("FACTORY_LOGS_AUDIT_FILE", str(file))
    run("tokens", "issue", "jig-07", "--label", "J-07", "--only-write")
    run("users", "passwd", "jig-07", stdin="quite another\n")
    run("users", "set-permission", "jig-07", "ADMIN")
    run("users", "disable", "jig-07")
    run("users", "enable", "jig-07")
    run("users", "delete", "jig-07")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["action"] for line in lines] == [
        "token issued", "password changed", "permission changed", "user disabled", "user enabled", "user deleted",
    ]  # fmt: skip
    assert {(line["user"], line["by"]) for line in lines} == {("jig-07", getpass.getuser())}
    assert (lines[0]["label"], lines[0]["only_write"]) == ("J-07", True)
    assert (lines[2]["permission"], lines[3]["tokens"]) == ("ADMIN", 2)
    assert "quite another" not in file.read_text()


def test_changes_by_commands_are_in_the_audit_file_without_secrets(
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

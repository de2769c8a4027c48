import json

import pytest
from argon2 import PasswordHasher

from tests.cli.conftest import Query, Run
from tests.cli.factories import make_user, stored


def test_a_user_is_created_once(run: Run, query: Query) -> None:
    first = run("users", "create", "ann", "--permission", "system", "--display-name", "Ann [A]", stdin="open sesame\n")
    assert (first.exit_code, first.stdout) == (0, "")
    assert "open sesame" not in first.stderr
    (row,) = query("select * from users")
    assert (row["username"], row["display_name"], row["permission"]) == ("ann", "Ann [A]", "SYSTEM")
    assert row["password_hash"].startswith("$argon2id$")

    again = run("users", "create", "ann", "--permission", "OVERVIEW", stdin="another one\n")
    assert again.exit_code == 1
    assert again.stderr == "error: There is a user 'ann' already.\n"

    listed = run("users", "list")
    assert listed.exit_code == 0
    assert "Ann [A]" in listed.stdout


def test_a_password_has_at_least_eight_characters(run: Run, query: Query) -> None:
    short = run("users", "create", "ann", "--permission", "SYSTEM", stdin="sevenis\n")
    assert (short.exit_code, short.stderr) == (1, "error: the password has fewer than 8 characters\n")
    assert query("select 1 from users") == []
    assert run("users", "create", "ann", "--permission", "SYSTEM", stdin="eight is\n").exit_code == 0
    (before,) = query("select password_hash from users")
    short = run("users", "passwd", "ann", stdin="sevenis\n")
    assert (short.exit_code, short.stderr) == (1, "error: the password has fewer than 8 characters\n")
    assert query("select password_hash from users") == [before]


def test_a_changed_password_replaces_the_old_one(run: Run, query: Query) -> None:
    make_user(run)
    token = run("tokens", "issue", "jig-07").stdout.strip()
    changed = run("users", "passwd", "jig-07", stdin="quite another\n")
    assert (changed.exit_code, changed.stdout) == (0, "")
    (row,) = query("select password_hash from users")
    assert PasswordHasher().verify(row["password_hash"], "quite another")
    assert stored(query, token)["revoked_at"] is None


def test_a_permission_is_changed(run: Run, query: Query) -> None:
    make_user(run)
    assert run("users", "set-permission", "jig-07", "overview").exit_code == 0
    assert query("select permission from users") == [{"permission": "OVERVIEW"}]
    assert run("users", "set-permission", "jig-07", "root").exit_code == 2


def test_a_disabled_user_has_no_tokens_and_gets_none_until_enabled(run: Run, query: Query) -> None:
    make_user(run)
    token = run("tokens", "issue", "jig-07", "--expires-in", "never").stdout.strip()
    disabled = run("users", "disable", "jig-07")
    assert (disabled.exit_code, disabled.stderr.splitlines()[-1]) == (0, "Disabled the user jig-07 and ended 1 token")
    assert stored(query, token)["revoked_at"] is not None
    (first,) = query("select disabled_at from users")
    assert first["disabled_at"] is not None
    assert run("users", "disable", "jig-07").exit_code == 0
    assert query("select disabled_at from users") == [first]
    refused = run("tokens", "issue", "jig-07")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "the user 'jig-07' is disabled" in refused.stderr
    assert run("users", "enable", "jig-07").exit_code == 0
    assert stored(query, token)["revoked_at"] is not None
    assert run("tokens", "issue", "jig-07").exit_code == 0


def test_a_deleted_user_cannot_log_in_and_its_records_still_have_its_name(run: Run, query: Query) -> None:
    make_user(run)
    run("tokens", "issue", "jig-07")
    query("insert into idempotency_keys (user_id, key, fingerprint, status) select user_id, 'k', '', 201 from users")
    query("insert into factory_logs (app_name, timestamp, created_by) values ('tiger', now(), 'jig-07')")
    deleted = run("users", "delete", "jig-07")
    assert (deleted.exit_code, deleted.stderr.splitlines()[-1]) == (0, "Deleted the user jig-07")
    assert query("select 1 from users union all select 1 from tokens") == []
    assert query("select created_by from factory_logs") == [{"created_by": "jig-07"}]
    make_user(run)


@pytest.mark.parametrize("command", ["disable", "enable", "delete", "passwd", "set-permission"])
def test_an_unknown_user_cannot_be_changed(run: Run, command: str) -> None:
    arguments = ["SYSTEM"] if command == "set-permission" else []
    result = run("users", command, "nobody", *arguments, stdin="open sesame\n")
    assert (result.exit_code, result.stderr) == (
        1,
        "error: there is no user 'nobody'; factory-logs users list shows all\n",
    )


def test_users_are_listed_in_full(run: Run) -> None:
    make_user(run, "a" * 200)
    make_user(run, "off")
    run("users", "disable", "off")
    assert "a" * 200 in run("users", "list").stdout
    first, second = json.loads(run("users", "list", "--json").stdout)
    assert (first["username"], first["permission"], first["has_password"]) == ("a" * 200, "SYSTEM", True)
    assert (first["disabled_at"], second["username"]) == (None, "off")
    assert second["disabled_at"] >= second["created_at"]


@pytest.mark.parametrize("stdin", ["", "\n"])
def test_an_empty_password_is_refused(run: Run, query: Query, stdin: str) -> None:
    result = run("users", "create", "ann", "--permission", "SYSTEM", stdin=stdin)
    assert (result.exit_code, result.stderr) == (1, "error: the password is empty\n")
    assert query("select 1 from users") == []

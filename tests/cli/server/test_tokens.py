import hashlib
import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Query, Run
from tests.cli.factories import make_user, stored


@pytest.mark.parametrize(
    ("arguments", "life", "idle"),
    [
        ([], timedelta(hours=3), 3 * 3600),
        (["--expires-in", "90d"], timedelta(days=90), None),
        (["--expires-in", "never"], None, None),
    ],
)
def test_a_token_ends_after_the_requested_time(
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
        (["jig-07", "--expires-in", "soon"], "is not a duration"),
        (["jig-07", "--expires-in", "0s"], "is not a duration"),
        (["jig-07", "--expires-in", "99999999999w"], "too long"),
    ],
)
def test_a_token_that_cannot_be_issued_is_an_error(run: Run, arguments: list[str], message: str) -> None:
    make_user(run)
    result = run("tokens", "issue", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert message in result.stderr


def test_tokens_are_listed_with_label_last_use_and_end(run: Run, query: Query) -> None:
    make_user(run)
    make_user(run, "ann")
    run("tokens", "issue", "ann")
    jig = run(
        "tokens", "issue", "jig-07", "--label", "[jig] 07", "--only-write", "--expires-in", "never"
    ).stdout.strip()
    ended = run("tokens", "issue", "jig-07").stdout.strip()
    query("update tokens set last_used_at = '2026-01-31 13:45:00.5' where label is not null")
    run("tokens", "revoke", "-", stdin=ended)
    table = run("tokens", "list").stdout
    for text in ("[jig] 07", "2026-01-31 13:45:00", "never", "store logs", "or 10800 s after its last use"):
        assert text in table
    assert jig not in table
    listed = json.loads(run("tokens", "list", "--user", "jig-07", "--json").stdout)
    digest = hashlib.sha256(jig.encode()).hexdigest()
    assert [(token["id"], token["label"], token["only_write"]) for token in listed] == [(digest[:16], "[jig] 07", True)]
    assert (listed[0]["last_used_at"], listed[0]["expires_at"]) == ("2026-01-31 13:45:00", None)
    everything = json.loads(run("tokens", "list", "--all", "--json").stdout)
    assert [token["username"] for token in everything] == ["ann", "jig-07", "jig-07"]
    assert [token["has_ended"] for token in everything] == [False, False, True]
    assert run("tokens", "list", "--user", "nobody").exit_code == 1


def test_an_only_write_token_is_for_users_who_may_write(run: Run, query: Query) -> None:
    assert run("users", "create", "ann", "--permission", "FACTORY", stdin="open sesame\n").exit_code == 0
    refused = run("tokens", "issue", "ann", "--only-write")
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "needs the permission SYSTEM" in refused.stderr
    assert query("select 1 from tokens") == []


@pytest.mark.parametrize("label", ["", "two\nlines", "x" * 256])
def test_a_label_that_cannot_be_shown_is_refused(run: Run, label: str) -> None:
    make_user(run)
    refused = run("tokens", "issue", "jig-07", "--label", label)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert "--label must be 1 to 255 printable characters" in refused.stderr


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


def test_a_token_is_revoked_by_a_file_by_stdin_or_by_its_id(run: Run, query: Query, tmp_path: Path) -> None:
    make_user(run)
    tokens = [run("tokens", "issue", "jig-07").stdout.strip() for _ in range(4)]
    file = tmp_path / "token"
    file.write_text(f"{tokens[0]}\n")
    assert run("tokens", "revoke", "--token-file", file).exit_code == 0
    assert run("tokens", "revoke", "-", stdin=tokens[1]).exit_code == 0
    assert run("tokens", "revoke", "--id", hashlib.sha256(tokens[2].encode()).hexdigest()[:16]).exit_code == 0
    assert [stored(query, token)["revoked_at"] is None for token in tokens] == [False, False, False, True]
    assert run("tokens", "revoke", "--id", "0" * 16).exit_code == 1
    assert "none: No such file" in run("tokens", "revoke", "--token-file", tmp_path / "none").stderr
    for arguments, stdin in ([["-"], "\n"], [["-"], ""], [[], None], [["-", "--user", "jig-07"], tokens[3]]):
        refused = run("tokens", "revoke", *arguments, stdin=stdin)
        assert refused.exit_code == 1
        assert refused.stderr.startswith("error: ")
    assert stored(query, tokens[3])["revoked_at"] is None

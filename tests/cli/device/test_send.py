"""`send`, as a jig's shell script uses it."""

import json
import os
import re
from pathlib import Path

import pytest

from tests.cli.conftest import Query, Run
from tests.client.servers import Server


def test_send_delivers_a_log(run: Run, online: Server, query: Query) -> None:
    sent = run("send", "jig", "--imei", "352099001761481", "--tag", "jig_id=J-07", "--tag", "note=3.28",
               "--field", "passed=true", "--field", "voltage=3.28", "--field", "note=all good",
               "--timestamp", "2024-01-31 13:45", "--wait", "30")  # fmt: skip
    assert (sent.exit_code, sent.stderr) == (0, "Delivered\n")
    (row,) = query("SELECT product_imei, timestamp::text, tags::text, fields::text FROM factory_logs")
    assert (row["product_imei"], row["timestamp"]) == ("352099001761481", "2024-01-31 13:45:00")
    assert json.loads(row["tags"]) == {"jig_id": "J-07", "note": "3.28"}
    assert json.loads(row["fields"]) == {"passed": True, "voltage": 3.28, "note": "all good"}


@pytest.mark.slow
def test_send_has_succeeded_once_the_log_is_in_the_spool(run: Run) -> None:
    sent = run("send", "jig", "--wait", "5")
    assert sent.exit_code == 0
    assert re.fullmatch(r"In the spool, not delivered yet(: ConnectError.*)?; 1 wait\n", sent.stderr)
    waits, since, hint = run("spool", "show").stdout.splitlines()
    assert re.fullmatch(r"1 log waits \(\d+ bytes\), 0 are rejected, 0 were delivered, 0 dropped", waits)
    assert re.fullmatch(r"waiting since \S+ \S+ UTC: ConnectError: .*refused", since)
    assert hint == "no process sends them now; the next client or command that uses this spool does"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jig", "--imei", "12"], "product_imei: expected exactly 15 digits"),
        (["jig", "--field", "voltage"], "--field 'voltage' is not like name=value"),
        (["jig", "--tag", "=J-07"], "--tag '=J-07' is not like name=value"),
        (
            ["jig", "--username", "u", "--password", "p"],
            "or username and password (--token or FACTORY_LOGS_TOKEN, --token-file",
        ),
        (
            ["jig", "--url", "logs"],
            "like https://logs.example.com, not 'logs' (--url or FACTORY_LOGS_URL",
        ),
        (["jig", "--spool", "/dev/null"], "the spool folder /dev/null"),
    ],
)
def test_an_error_of_send_is_one_line(run: Run, arguments: list[str], message: str) -> None:
    sent = run("send", *arguments)
    assert sent.exit_code == 1
    assert message in sent.stderr
    assert sent.stderr.count("\n") == 1


def test_send_names_an_argument_that_is_not_utf_8(run: Run) -> None:
    sent = run("send", "jig", "--tag", os.fsdecode(b"jig\xff=1"))
    assert (sent.exit_code, r"jig\udcff" in sent.stderr or "tags: a lone surrogate" in sent.stderr) == (1, True)


def test_the_token_and_the_password_can_come_from_stdin(run: Run, online: Server) -> None:
    token = os.environ.pop("FACTORY_LOGS_TOKEN")
    assert run("send", "jig", "--wait", "30", "--token", "-", stdin=f"{token}\n").stderr == "Delivered\n"
    login = ("--username", "jig-07", "--password", "-")
    assert run("send", "jig", "--wait", "30", *login, stdin="open sesame\n").stderr == "Delivered\n"
    assert run("send", "jig", "--wait", "30", "--token", "-", stdin=f"\ufeff{token}\r\n").stderr == "Delivered\n"


def test_the_token_can_come_from_a_file(
    run: Run, online: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "token"
    file.write_text(os.environ["FACTORY_LOGS_TOKEN"] + "\n", encoding="utf-8-sig")
    monkeypatch.delenv("FACTORY_LOGS_TOKEN")
    assert run("send", "jig", "--wait", "30", "--token-file", file).stderr == "Delivered\n"
    monkeypatch.setenv("FACTORY_LOGS_TOKEN_FILE", str(file))
    assert run("send", "jig", "--wait", "30").stderr == "Delivered\n"


@pytest.mark.parametrize("option", ["--token", "--password"])
def test_a_missing_secret_on_stdin_is_an_error(run: Run, option: str) -> None:
    sent = run("send", "jig", option, "-", stdin="")
    assert (sent.exit_code, "standard input contains no line" in sent.stderr) == (2, True)


@pytest.mark.parametrize("command", ["send", "ship", "tail"])
def test_help_warns_that_a_token_on_the_command_line_is_visible_and_names_alternatives(run: Run, command: str) -> None:
    words = " ".join(run(command, "--help").stdout.replace("│", " ").split())
    assert "Other users can see an argument in `ps`, so prefer -, --token-file or the environment" in words

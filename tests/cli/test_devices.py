"""`send`, `ship`, `spool` and `tail`, as a jig's shell scripts and its engineers use them."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Query, Run
from tests.client.servers import Server

NOWHERE = {"FACTORY_LOGS_URL": "http://127.0.0.1:9", "FACTORY_LOGS_TOKEN": "t"}


@pytest.fixture(autouse=True)
def spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A jig whose environment knows no server that answers."""
    for name, value in {**NOWHERE, "FACTORY_LOGS_SPOOL": str(tmp_path / "spool")}.items():
        monkeypatch.setenv(name, value)
    return tmp_path / "spool"


@pytest.fixture
def online(shared_server: Server, token: str, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The jig's environment names a real server."""
    monkeypatch.setenv("FACTORY_LOGS_URL", shared_server.url)
    monkeypatch.setenv("FACTORY_LOGS_TOKEN", token)
    return shared_server


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def running(*arguments: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`factory-logs <arguments>` in a process of its own, ended by Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "factory_logs", *arguments], env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def test_send_delivers_a_log(run: Run, online: Server, query: Query) -> None:
    sent = run("send", "jig", "--imei", "352099001761481", "--tag", "jig_id=J-07", "--tag", "note=3.28",
               "--field", "passed=true", "--field", "voltage=3.28", "--field", "note=all good",
               "--timestamp", "2024-01-31 13:45", "--wait", "30")  # fmt: skip
    assert (sent.exit_code, sent.stderr) == (0, "Delivered\n")
    (row,) = query("SELECT product_imei, timestamp::text, tags::text, fields::text FROM factory_logs")
    assert (row["product_imei"], row["timestamp"]) == ("352099001761481", "2024-01-31 13:45:00")
    assert json.loads(row["tags"]) == {"jig_id": "J-07", "note": "3.28"}
    assert json.loads(row["fields"]) == {"passed": True, "voltage": 3.28, "note": "all good"}


def test_send_has_succeeded_once_the_log_is_in_the_spool(run: Run) -> None:
    sent = run("send", "jig", "--wait", "0.1")
    assert sent.exit_code == 0
    assert re.fullmatch(r"In the spool, not delivered yet(: ConnectError.*)?; 1 wait\n", sent.stderr)
    assert run("spool", "show").stdout.startswith("1 logs wait (")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["jig", "--imei", "12"], "product_imei: expected exactly 15 digits"),
        (["jig", "--field", "voltage"], "'voltage' is not like name=value"),
        (["jig", "--username", "u", "--password", "p"], "give one of: token, token_file, or username and password"),
        (["jig", "--url", "logs"], "the URL must be like https://logs.example.com"),
        (["jig", "--spool", "/dev/null"], "the spool folder /dev/null"),
    ],
)
def test_what_is_wrong_with_send_is_said_in_one_line(run: Run, arguments: list[str], message: str) -> None:
    sent = run("send", *arguments)
    assert sent.exit_code == 1
    assert message in sent.stderr
    assert sent.stderr.count("\n") == 1


def test_rejected_logs_are_listed_with_the_servers_error_sent_again_and_dropped(
    run: Run, online: Server, query: Query
) -> None:
    for repair in ("7", "8"):
        sent = run("send", "jig", "--repair-id", repair, "--field", "note=[red]", "--wait", "30")
        assert sent.stderr.endswith("Rejected by the server; the spool keeps it: factory-logs spool show\n")
    shown = run("spool", "show")
    assert shown.stdout.startswith("0 logs wait (0 bytes), 2 are rejected, 0 were delivered, 0 dropped\n")
    assert "repair_id: " in shown.stdout
    assert '"note":["red"]' in shown.stdout or '"note":"[red]"' in shown.stdout
    first, second = (json.loads(line) for line in run("spool", "show", "--json").stdout.splitlines())
    assert (first["number"], json.loads(second["line"])["repair_id"]) == (1, 8)
    assert first["reason"].startswith("repair_id: ")
    assert "... and 1 more; --limit shows more" in run("spool", "show", "--limit", "1").stdout

    assert run("send", "jig", "--wait", "30").stderr == "Delivered\n"

    query("INSERT INTO repairs (repair_id, product_imei) VALUES (7, '352099001761481')")
    assert run("spool", "retry", "1").stderr == "1 logs will be sent again\n"
    assert run("spool", "drop", "--all").stderr == "Dropped 1 logs\n"
    assert run("send", "jig", "--wait", "30").stderr == "Delivered\n"
    assert [row["repair_id"] for row in query("SELECT repair_id FROM factory_logs ORDER BY 1")] == [7, None, None]
    assert "3 were delivered, 1 dropped" in run("spool", "show").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show"], "there is no spool in"),
        (["retry", "1"], "there is no spool in"),
    ],
)
def test_a_folder_without_a_spool_is_an_error(run: Run, arguments: list[str], message: str) -> None:
    shown = run("spool", *arguments)
    assert (shown.exit_code, message in shown.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [["retry"], ["drop", "1", "--all"]])
def test_retry_and_drop_want_either_numbers_or_all(run: Run, arguments: list[str]) -> None:
    run("send", "jig", "--wait", "0")
    refused = run("spool", *arguments)
    assert (refused.exit_code, refused.stderr) == (1, "error: give either numbers of rejected logs or --all\n")


def test_ship_takes_a_file_once_and_goes_on_where_it_stopped(
    run: Run, online: Server, query: Query, tmp_path: Path
) -> None:
    file = tmp_path / "jig.ndjson"
    file.write_text("".join(json.dumps({"app_name": "own", "fields": {"n": n}}) + "\n" for n in range(3)) + "no JSON\n")
    arguments = ("ship", file, "--app-name", "jig", "--tag", "jig_id=J-07")
    assert run(*arguments).stderr == f"Spooled 3 lines of {file}, 1 of them bad: factory-logs spool show\n"
    with file.open("a") as opened:
        opened.write(json.dumps({"fields": {"n": 3}}) + "\n")
    assert run(*arguments).stderr == f"Spooled 1 lines of {file}\n"
    until(lambda: len(query("SELECT 1 FROM factory_logs")) == 4)
    rows = query("SELECT app_name, tags::text, (fields->>'n')::int n FROM factory_logs ORDER BY factory_log_id")
    assert [(row["app_name"], row["n"]) for row in rows] == [("own", 0), ("own", 1), ("own", 2), ("jig", 3)]
    assert {row["tags"] for row in rows} == {'{"jig_id": "J-07"}'}
    (bad,) = map(json.loads, run("spool", "show", "--json").stdout.splitlines())
    assert (bad["line"], bad["reason"].startswith("not JSON")) == ("no JSON", True)


def test_ship_plain_takes_lines_of_text(run: Run, spool: Path, tmp_path: Path) -> None:
    file = tmp_path / "jig.log"
    file.write_bytes(b"battery ok\r\nodd \xff\x00 bytes\n")
    assert run("ship", file, "--plain").stderr == "error: --plain needs --app-name: a line of text names no app\n"
    assert run("ship", file, "--plain", "--app-name", "jig").stderr == f"Spooled 2 lines of {file}\n"
    assert "2 logs wait" in run("spool", "show").stdout
    assert run("ship", tmp_path / "none").stderr == f"error: there is no file {tmp_path / 'none'}\n"


def test_ship_follow_survives_the_files_rotation_and_its_own_death(
    online: Server, query: Query, tmp_path: Path, run: Run
) -> None:
    file = tmp_path / "jig.ndjson"

    def write(*numbers: int) -> None:
        with file.open("a") as opened:
            opened.writelines(json.dumps({"app_name": "jig", "fields": {"n": n}}) + "\n" for n in numbers)

    def stored() -> list[int]:
        rows = query("SELECT (fields->>'n')::int n FROM factory_logs ORDER BY factory_log_id")
        return [row["n"] for row in rows]

    write(0, 1)
    arguments = ("ship", file, "--follow", "--rotated-seconds", "0.1")
    with running(*arguments) as ship:
        until(lambda: stored() == [0, 1])
        other = run(*arguments)
        assert (other.exit_code, "is being shipped by another process" in other.stderr) == (1, True)
        write(2)
        file.rename(tmp_path / "jig.ndjson.1")
        write(3)
        until(lambda: stored() == [0, 1, 2, 3])
        ship.kill()
    write(4)
    (tmp_path / "jig.ndjson.1").rename(tmp_path / "jig.ndjson.2")
    file.rename(tmp_path / "jig.ndjson.1")
    write(5)
    with running(*arguments):
        until(lambda: len(stored()) >= 6)
    assert stored() == [0, 1, 2, 3, 4, 5]


def test_tail_shows_new_logs_green_where_they_passed_and_red_where_they_failed(online: Server, run: Run) -> None:
    q = json.dumps({"filters": [{"name": "app_name", "op": "==", "val": "jig"}]})
    fields = (["passed=true", "v=3.28"], ["passed=false"], ["note=\x1b[2J"])
    with running("tail", "--q", q, "--after", "0", FORCE_COLOR="1", TERM="xterm", COLUMNS="200") as tail:
        for app in ("other", "jig"):
            for members in fields:
                run("send", app, *(part for member in members for part in ("--field", member)), "--wait", "30")
        assert tail.stdout is not None
        passed, failed, other = (tail.stdout.readline() for _ in range(3))
    assert "\x1b[32mPASS jig\x1b[0m" in passed
    assert "v=3.28" in passed
    assert "\x1b[1;31mFAIL jig\x1b[0m" in failed
    assert "PASS" not in other + failed
    assert "\x1b[2J" not in other
    assert r"note=\x1b[2J" in other


def test_tail_json_gives_whole_records_to_other_programs(online: Server, run: Run, query: Query) -> None:
    run("send", "jig", "--field", "n=1", "--wait", "30")
    with running("tail", "--json", "--after", "0") as tail:
        assert tail.stdout is not None
        record = json.loads(tail.stdout.readline())
    assert (record["app_name"], record["fields"], record["created_by"]) == ("jig", {"n": 1}, "jig-07")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--q", "{"], "Unable to decode data"),
        (["--q", '{"limit": 1}'], "following new logs takes filters only"),
        (["--token", "x" * 64], "token"),
    ],
)
def test_tail_says_why_it_may_not_follow(run: Run, online: Server, arguments: list[str], message: str) -> None:
    refused = run("tail", *arguments)
    assert (refused.exit_code, message in refused.stderr) == (1, True)

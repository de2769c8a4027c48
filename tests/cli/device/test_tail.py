"""`tail`, on an engineer's terminal."""

import json

import pytest

from factory_logs.cli.device.tail import _line
from tests.cli.conftest import Query, Run
from tests.cli.device.jig import running
from tests.client.servers import Server


def test_tail_shows_passed_logs_in_green_and_failed_ones_in_red(online: Server, run: Run) -> None:
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


def test_tail_json_prints_whole_records(online: Server, run: Run, query: Query) -> None:
    run("send", "jig", "--field", "n=1", "--wait", "30")
    with running("tail", "--json", "--after", "0") as tail:
        assert tail.stdout is not None
        record = json.loads(tail.stdout.readline())
    assert (record["app_name"], record["fields"], record["created_by"]) == ("jig", {"n": 1}, "jig-07")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--q", "{"], "Unable to decode data"),
        (["--q", '{"limit": 1}'], "a tail accepts only filters"),
        (["--token", "x" * 64], "token"),
    ],
)
def test_tail_without_permission_is_an_error_with_the_reason(
    run: Run, online: Server, arguments: list[str], message: str
) -> None:
    refused = run("tail", *arguments)
    assert (refused.exit_code, message in refused.stderr) == (1, True)


def test_a_number_at_passed_is_shown_because_it_is_not_a_verdict() -> None:
    log = {"timestamp": "2024-01-29 00:00:00", "app_name": "jig", "product_imei": None, "tags": None}
    assert "passed" in _line(log | {"fields": {"passed": 1}}).plain
    assert "passed" not in _line(log | {"fields": {"passed": True}}).plain

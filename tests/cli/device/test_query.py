"""`query`, on an engineer's machine: a table for people, NDJSON and CSV for programs."""

import csv
import json
import os

import pytest

from factory_logs.client.read_results import LOG_COLUMNS
from tests import forked
from tests.cli.conftest import Run
from tests.client.reading import IMEIS, attempts, numbered, store
from tests.client.servers import Server


def test_a_table_has_the_chosen_columns_in_the_chosen_order(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts())
    asked = ("--where", "fields.volt.value<3.25", "--order", "fields.volt.value:desc", "--limit", "2")
    shown = run("query", *asked, "--columns", "product_imei,tags.jig,fields.volt,fields.none")
    assert shown.exit_code == 0
    header, *rows = [line.strip("┃│ ").split() for line in shown.stdout.splitlines() if line.startswith(("┃", "│"))]
    assert [name for name in header if name != "┃"] == ["product_imei", "tags.jig", "fields.volt", "fields.none"]
    assert [[text for text in row if text != "│"] for row in rows] == [
        [IMEIS[1], "J-1", "pass=true", "value=3.2"],
        [IMEIS[2], "J-2", "pass=true", "value=3.1"],
    ]
    assert shown.stderr == "There are more than 2 logs: --limit 0 shows all, --csv and --json write all\n"
    assert "\x1b" not in shown.stdout


def test_the_default_columns_are_time_app_unit_tags_and_measurements(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts()[:1])
    shown = run("query").stdout
    for part in ("2024-01-30 10:00:00", "tiger", IMEIS[0], "jig=J-1", "passed=true"):
        assert part in shown


def test_control_characters_in_a_log_do_not_reach_the_terminal(online: Server, token: str, run: Run) -> None:
    store(online, token, [{"app_name": "a\x1b[2J[bold]", "timestamp": "2024-01-31", "tags": {"t": "\x1b[2J"}}])
    shown = run("query").stdout
    assert "\x1b" not in shown
    assert r"a\x1b[2J[bold]" in shown


def test_json_has_one_line_per_record_with_all_or_the_chosen_columns(online: Server, token: str, run: Run) -> None:
    ids = store(online, token, numbered(250))
    records = [json.loads(line) for line in run("query", "--json").stdout.split("\n") if line]
    assert [record["factory_log_id"] for record in records] == ids
    assert list(records[0]) == list(LOG_COLUMNS)
    chosen = run("query", "--json", "--columns", "fields.n, app_name", "--limit", "1").stdout
    assert json.loads(chosen) == {"fields.n": 0, "app_name": "jig"}


def test_csv_has_a_header_line_and_null_is_an_empty_cell(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts())
    names, first, *_ = csv.reader(run("query", "--csv").stdout.splitlines())
    assert names == list(LOG_COLUMNS)
    row = dict(zip(names, first, strict=True))
    assert (row["app_name"], row["repair_id"], json.loads(row["tags"])) == ("tiger", "", {"jig": "J-1"})
    chosen = run("query", "--csv", "--columns", "tags.jig,fields.passed", "--where", f"product_imei={IMEIS[1]}")
    assert chosen.stdout.splitlines() == ["tags.jig,fields.passed", "J-2,false", "J-1,true"]


def test_csv_for_a_spreadsheet_escapes_texts_that_would_be_formulas(online: Server, token: str, run: Run) -> None:
    fields = {"text": "@SUM(1)", "number": -1, "harmless": "a=1"}
    store(online, token, [{"app_name": "=1+1", "timestamp": "2024-01-31", "tags": "+1", "fields": fields}])
    columns = "app_name,tags,fields.text,fields.number,fields.harmless"
    for option, first in ((), "=1+1,+1,@SUM(1)"), (("--escape-formulas",), "'=1+1,'+1,'@SUM(1)"):
        shown = run("query", "--csv", "--columns", columns, *option)
        assert shown.stdout.splitlines() == [columns, f"{first},-1,a=1"]


@pytest.mark.parametrize(
    ("where", "count"),
    [
        (["app_name=tiger"], 4),
        (["app_name != tiger"], 0),
        ([f"product_imei={IMEIS[0]}"], 1),
        (["fields.passed=false"], 2),
        (["fields.volt.value>=3.2", "tags.jig=J-1"], 2),
        (["fields__volt__value<=2.9"], 1),
        (["timestamp>2024-01-31 12:00:00"], 1),
        (["factory_log_id=1"], 1),
        (["repair_id=null"], 4),
        (["tags.jig!=null", 'tags.jig="J-2"'], 2),
        (["fields.passed=true", "fields.volt.pass==true"], 2),
    ],
)
def test_where_selects_logs(online: Server, token: str, run: Run, where: list[str], count: int) -> None:
    store(online, token, attempts())
    found = run("query", "--json", *(part for text in where for part in ("--where", text)))
    assert found.exit_code == 0, found.stderr
    assert len(found.stdout.splitlines()) == count


def test_where_is_added_to_the_filters_of_q(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts())
    q = '{"filters": [{"name": "tags__jig", "op": "==", "val": "J-1"}], "limit": 5}'
    assert len(run("query", "--q", q, "--json").stdout.splitlines()) == 2
    assert len(run("query", "--q", q, "--where", "fields.volt.value>3.2", "--json").stdout.splitlines()) == 1


def test_a_closed_pipe_is_not_an_error(online: Server, token: str) -> None:
    store(online, token, numbered(1000))
    for output in ("--json", "--csv", "--limit=0"):
        ran = forked.run_for_one_line("query", output, environment=os.environ)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--where", "voltage"], "--where 'voltage' is not like app_name=tiger"),
        (["--where", "repair_id<null"], "null can only be compared with = and !="),
        (["--where", "nope=1"], "no field 'nope'"),
        (["--q", "{"], "--q is not JSON"),
        (["--where", f"fields.serial={10**30}"], "q cannot be sent as JSON: Integer exceeds 64-bit range"),
        (["--where", "app_name=\udcff"], "q cannot be sent as JSON: str is not valid UTF-8"),
        (["--q", "[]"], "--q is not a JSON object"),
        (["--q", '{"filters": 1}', "--where", "app_name=a"], "filters is not a list"),
        (["--order", "timestamp:up"], "--order 'timestamp:up' is not like timestamp"),
        (["--columns", "nope"], "no column 'nope'"),
        (["--columns", "fields..a"], "no column 'fields..a'"),
        (["--json", "--csv"], "give one of --json and --csv"),
        (["--token", "x" * 64], "token"),
        (["--url", "logs.example.com"], "the URL must be like https://logs.example.com"),
        (["--url", "http://127.0.0.1:9", "--wait", "0"], "no result within 0 s: ConnectError"),
    ],
)
def test_an_error_is_one_line_and_exit_status_1(run: Run, online: Server, arguments: list[str], message: str) -> None:
    refused = run("query", *arguments)
    assert (refused.exit_code, refused.stdout) == (1, "")
    assert refused.stderr.startswith("error: ")
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_wrong_option_is_exit_status_2(run: Run) -> None:
    assert run("query", "--limit", "-1").exit_code == 2


@pytest.mark.parametrize("option", [(), ("--json",), ("--csv",)])
def test_a_misspelt_path_gets_a_hint_if_nothing_is_found(
    online: Server, token: str, run: Run, option: tuple[str, ...]
) -> None:
    store(online, token, attempts())
    shown = run("query", "--where", "tags.jigg=J-1", *option)
    assert (shown.exit_code, shown.stderr) == (0, "hint: no log has the field tags__jigg; did you mean tags__jig?\n")
    assert "jigg" not in shown.stdout
    shown = run("query", "--where", "tags.jig=J-1", "--order", "fields.none", *option)
    assert shown.stderr == ""

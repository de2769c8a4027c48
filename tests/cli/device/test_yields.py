"""`yield`, on an engineer's machine: the numbers of the API as a table, JSON and CSV."""

import csv
import json

import pytest

from tests.cli.conftest import Run
from tests.client.reading import attempts, store
from tests.client.servers import Server


def cells(table: str, edges: str) -> list[list[str]]:
    """Return the cells of all table lines that begin with one of these characters."""
    return [
        [cell.strip() for cell in line.strip(edges).split(line[0])] for line in table.splitlines() if line[:1] in edges
    ]


def test_a_table_has_a_row_for_each_bucket_and_group_and_the_total(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts())
    shown = run("yield", "--bucket", "1d", "--by", "app_name", "--by", "tags.jig")
    assert (shown.exit_code, shown.stderr) == (0, "")
    (header,) = cells(shown.stdout, "┃")
    assert header == [
        "bucket (UTC)", "app_name", "tags__jig", "attempts", "units", "retested",
        "attempt yield", "first pass yield", "final yield",
    ]  # fmt: skip
    assert cells(shown.stdout, "│") == [
        ["2024-01-30 00:00:00", "tiger", "J-1", "1", "1", "0", "100.00%", "100.00%", "100.00%"],
        ["2024-01-30 00:00:00", "tiger", "J-2", "1", "1", "1", "0.00%", "0.00%", "100.00%"],
        ["2024-01-31 00:00:00", "tiger", "J-1", "1", "0", "0", "100.00%", "", ""],
        ["2024-01-31 00:00:00", "tiger", "J-2", "1", "1", "0", "0.00%", "0.00%", "0.00%"],
        ["total", "", "", "4", "3", "1", "50.00%", "33.33%", "66.67%"],
    ]
    assert "rolled throughput yield, all apps: 33.33%" in shown.stdout


def test_days_of_a_time_zone_are_shown_in_its_time(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts())
    asked = ("yield", "--bucket", "1d", "--tz", "Asia/Shanghai", "--where", "tags.jig=J-2")
    shown = run(*asked)
    assert cells(shown.stdout, "┃")[0][0] == "bucket (Asia/Shanghai)"
    assert [row[0] for row in cells(shown.stdout, "│")] == ["2024-01-30 00:00:00", "2024-02-01 00:00:00", "total"]
    body = json.loads(run(*asked, "--json").stdout)
    assert [bucket["bucket"] for bucket in body["buckets"]] == ["2024-01-29 16:00:00", "2024-01-31 16:00:00"]


def test_unit_and_passed_can_be_other_fields(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts())
    body = json.loads(run("yield", "--unit", "tags.jig", "--passed", "fields.volt.pass", "--json").stdout)
    assert (body["total"]["units"], body["total"]["passed"]) == (2, 3)


def test_csv_has_the_rows_without_the_total(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts())
    names, *rows = csv.reader(run("yield", "--by", "tags.jig", "--csv").stdout.splitlines())
    assert names[:3] == ["tags__jig", "attempts", "passed"]
    assert [row[:3] for row in rows] == [["J-1", "2", "2"], ["J-2", "2", "0"]]


def test_csv_for_a_spreadsheet_escapes_texts_that_would_be_formulas(online: Server, token: str, run: Run) -> None:
    store(online, token, [attempts()[0] | {"app_name": "=1+1"}])
    for option, name in ((), "=1+1"), (("--escape-formulas",), "'=1+1"):
        shown = run("yield", "--by", "app_name", "--csv", *option)
        assert [line.split(",")[0] for line in shown.stdout.splitlines()] == ["app_name", name]


def test_without_attempts_the_table_is_empty(online: Server, token: str, run: Run) -> None:
    shown = run("yield", "--by", "app_name")
    assert shown.exit_code == 0
    assert cells(shown.stdout, "│") == [["total", "0", "0", "0", "", "", ""]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bucket", "1 day"], "bucket: expected a duration"),
        (["--tz", "Shanghai", "--bucket", "1d"], "tz: no time zone"),
        (["--by", "nope"], "by: no field 'nope'"),
        (["--q", '{"limit": 1}'], "q: this call accepts only filters"),
        (["--json", "--csv"], "give one of --json and --csv"),
        (["--token", "x" * 64], "token"),
    ],
)
def test_an_error_names_the_option(run: Run, online: Server, arguments: list[str], message: str) -> None:
    refused = run("yield", *arguments)
    assert (refused.exit_code, message in refused.stderr) == (1, True), refused.stderr


def test_a_misspelt_verdict_gets_a_hint(online: Server, token: str, run: Run) -> None:
    store(online, token, attempts())
    shown = run("yield", "--passed", "fields.pass", "--by", "tags.jigs")
    assert (shown.exit_code, shown.stderr.splitlines()) == (
        0,
        [
            "hint: no log has the field fields__pass; did you mean fields__passed?",
            "hint: no log has the field tags__jigs; did you mean tags__jig?",
        ],
    )

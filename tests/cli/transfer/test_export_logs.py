import csv
import gzip
import json
import os
import re
from pathlib import Path

import pytest
import zstandard

from factory_logs.cli.transfer import export_logs
from tests import forked
from tests.cli.conftest import Query, Run
from tests.cli.factories import LOG, lines


@pytest.fixture
def stored(run: Run) -> None:
    assert run("import", "-", "--format", "ndjson", stdin=lines(LOG, LOG | {"app_name": "koala"})).exit_code == 0


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "a.csv"])
@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.usefixtures("stored")
def test_the_file_name_determines_format_and_compression(
    run: Run, query: Query, tmp_path: Path, name: str, compression: str
) -> None:
    file = tmp_path / f"{name}{compression}"
    result = run("export", "--output", file)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    data = file.read_bytes()
    if compression == ".gz":
        data = gzip.decompress(data)
    elif compression == ".zst":
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    assert data.startswith(b"factory_log_id," if name == "a.csv" else b'{"factory_log_id":1,')
    assert data.count(b"\n") == (3 if name == "a.csv" else 2)
    assert run("import", file).stdout == f"Imported 2 logs from {file}\n"
    assert query("select app_name from factory_logs where factory_log_id > 2") == [
        {"app_name": "tiger"}, {"app_name": "koala"},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.lp", "a.csv.bz2", "a.zip", "a.parquet.gz"])
@pytest.mark.usefixtures("stored")
def test_an_unknown_suffix_is_refused(run: Run, tmp_path: Path, name: str) -> None:
    result = run("export", "--output", tmp_path / name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "is not one of .ndjson, .jsonl, .csv, each also with .gz or .zst; or add --format" in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("stored")
def test_the_format_option_takes_precedence(run: Run, tmp_path: Path) -> None:
    assert run("export", "--output", tmp_path / "a.txt", "--format", "csv").exit_code == 0
    assert (tmp_path / "a.txt").read_text().startswith("factory_log_id,")
    assert run("export", "--output", tmp_path / "a.gz", "--format", "csv").exit_code == 0
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()).startswith(b"factory_log_id,")
    assert run("export", "--output", tmp_path / "b.gz").exit_code == 0
    assert gzip.decompress((tmp_path / "b.gz").read_bytes()).startswith(b'{"factory_log_id":1')


def test_the_help_lists_the_supported_formats(run: Run) -> None:
    text = run("export", "--help").stdout
    assert "ndjson|csv" in text
    assert re.search(r"\blp\b|influx", text) is None
    for read_only in ("lp", "influx-csv", "json"):
        assert run("export", "--format", read_only).exit_code == 2


@pytest.mark.slow
def test_a_closed_pipe_is_not_an_error(run: Run, query: Query, migrated_url: str) -> None:
    query(
        "insert into factory_logs (app_name, timestamp, tags)"
        " select 'tiger', now(), jsonb_build_object('x', repeat('x', 1000)) from generate_series(1, 2000)"
    )
    for output in ([], ["--output", "/dev/stdout"]):
        done = forked.run_for_one_line(
            "export", *output, environment=os.environ | {"FACTORY_LOGS_DATABASE_URL": migrated_url}
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["factory_log_id"] == 1


FORMULAS = ["=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "\r=1", "\n=1", "＝1"]


def test_texts_that_a_spreadsheet_would_run_are_escaped_on_demand(run: Run, tmp_path: Path) -> None:
    harmless = ["tiger", "a=b", "'=1", ' "=1"', "1-1"]
    logs = [LOG | {"app_name": name, "tags": "=1", "fields": -1} for name in [*FORMULAS, *harmless]]
    assert run("import", "-", "--format", "ndjson", "--created-by", "=me", stdin=lines(*logs)).exit_code == 0
    for option, escaped in ([], ""), (["--escape-formulas"], "'"):
        assert run("export", "--output", tmp_path / "a.csv", *option).exit_code == 0
        with (tmp_path / "a.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["app_name"] for row in rows] == [*(f"{escaped}{name}" for name in FORMULAS), *harmless]
        assert {(row["tags"], row["fields"], row["created_by"]) for row in rows} == {('"=1"', "-1", f"{escaped}=me")}


def test_each_of_two_exports_into_one_file_is_complete(tmp_path: Path) -> None:
    file = tmp_path / "logs.ndjson"
    with export_logs._opened(file) as first:
        first(b"1\n")
        with export_logs._opened(file) as second:
            second(b"2\n" * 3)
        assert file.read_bytes() == b"2\n" * 3
        first(b"1\n")
        assert file.read_bytes() == b"2\n" * 3
    assert file.read_bytes() == b"1\n" * 2
    assert list(tmp_path.iterdir()) == [file]


def test_export_selects_by_q(run: Run, tmp_path: Path) -> None:
    big = 9223372036854775807
    run("import", "-", "--format", "ndjson", stdin=lines(LOG, LOG | {"app_name": "koala", "fields": {"n": big}}))
    q = '{"filters":[{"name":"app_name","op":"==","val":"koala"}]}'
    (record,) = [json.loads(line) for line in run("export", "--q", q).stdout.splitlines()]
    assert (record["app_name"], record["fields"]) == ("koala", {"n": big})
    (row,) = csv.DictReader(run("export", "--q", q, "--format", "csv").stdout.splitlines())
    assert (row["timestamp"], json.loads(row["fields"])) == ("2024-01-31 13:45:00.123000", {"n": big})

    output = tmp_path / "out.csv"
    bad = run("export", "--q", '{"filters":[{"name":"colour","op":"is_null"}]}', "--output", output)
    assert (bad.exit_code, bad.stdout) == (1, "")
    assert "Unable to construct query" in bad.stderr
    assert list(tmp_path.iterdir()) == []

import csv
import gzip
import json
from datetime import datetime
from pathlib import Path

import pytest

from tests.cli.conftest import Query, Run

EXAMPLES = Path(__file__).parents[2] / "examples"
LOG = {"app_name": "tiger", "timestamp": "2024-01-31T13:45:00.123Z", "tags": {"jig_id": "J-07"}, "fields": {"v": 3.28}}


def lines(*records: object) -> str:
    return "".join(f"{record if isinstance(record, str) else json.dumps(record)}\n" for record in records)


def test_the_examples_are_imported_and_come_out_again(run: Run, query: Query, tmp_path: Path) -> None:
    repairs = run("import", "--table", "repairs", EXAMPLES / "repairs.csv", "--created-by", "ann")
    assert repairs.exit_code == 0, repairs.stderr
    logs = run("import", EXAMPLES / "factory_logs.ndjson")
    sent = [json.loads(line) for line in (EXAMPLES / "factory_logs.ndjson").read_text().splitlines()]
    assert (logs.exit_code, logs.stderr) == (0, "")
    assert logs.stdout == f"Imported {len(sent)} logs from {EXAMPLES / 'factory_logs.ndjson'}\n"
    assert query("select distinct created_by from repairs") == [{"created_by": "ann"}]

    for name in ("out.ndjson", "out.csv"):
        assert run("export", "--output", tmp_path / name).exit_code == 0
    exported = [json.loads(line) for line in (tmp_path / "out.ndjson").read_text().splitlines()]
    assert [record["tags"] for record in exported] == [record["tags"] for record in sent]
    assert [record["fields"] for record in exported] == [record["fields"] for record in sent]

    for name in ("out.ndjson", "out.csv"):
        assert run("import", tmp_path / name).exit_code == 0
    copies = query(
        "select count(*) from (select app_name, product_imei, repair_id, timestamp, tags, fields, count(*) as copies"
        " from factory_logs group by 1, 2, 3, 4, 5, 6) as g where copies % 3 <> 0"
    )
    assert copies == [{"count": 0}]
    assert query("select count(*) from factory_logs") == [{"count": 3 * len(sent)}]


def test_bad_lines_are_named_and_the_good_ones_stored(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "logs.jsonl"
    file.write_text(lines(LOG, "{", LOG | {"product_imei": "12"}, "", LOG | {"repair_id": 9}, LOG | {"colour": 1}, LOG))
    result = run("import", file, "--created-by", "import")
    assert result.exit_code == 1
    assert result.stdout == f"Imported 2 logs from {file}, rejected 4\n"
    rejected = result.stderr.splitlines()
    assert rejected[0].startswith(f"{file}:2: Unable to decode data")
    assert rejected[1:] == [
        f"{file}:3: product_imei: expected exactly 15 digits",
        f"{file}:5: repair_id: there is no repair 9",
        f"{file}:6: colour: is not a known field",
    ]
    assert query("select created_by from factory_logs") == [{"created_by": "import"}] * 2


def test_more_than_a_batch_from_a_packed_file(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "logs.ndjson.gz"
    with gzip.open(file, "wt") as out:
        out.writelines(lines(LOG | {"fields": {"n": n}}) for n in range(2500))
    assert run("import", file).stdout == f"Imported 2500 logs from {file}\n"
    rows = query("select fields->>'n' as n from factory_logs order by factory_log_id")
    assert [row["n"] for row in rows] == [str(n) for n in range(2500)]

    file.write_bytes(file.read_bytes()[:-20])
    damaged = run("import", file)
    assert damaged.exit_code == 1
    assert "damaged or cut off" in damaged.stderr


def test_csv_cells_become_what_they_stand_for(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "logs.csv"
    file.write_text(
        "\ufeffapp_name,timestamp,tags,tags.serial,fields.voltage,fields.battery.ok,fields.note\n"
        'tiger,1706708700123,"{""jig_id"": ""J-07""}",0012,3.28,true,"two\nlines"\n'
        "tiger,2024-01-31,,12,9007199254740993,,NaN\n"
        "tiger,2024-01-31,{,,,,\n"
        "tiger\n"
    )
    result = run("import", file)
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"{file}:5: tags: expected JSON",
        f"{file}:6: has 1 cells, the header has 7",
    ]
    first, second = query("select timestamp, tags, fields, product_imei from factory_logs order by factory_log_id")
    assert first["timestamp"] == datetime(2024, 1, 31, 13, 45, 0, 123000)
    assert json.loads(first["tags"]) == {"jig_id": "J-07", "serial": "0012"}
    assert json.loads(first["fields"]) == {"voltage": 3.28, "battery": {"ok": True}, "note": "two\nlines"}
    assert json.loads(second["tags"]) == {"serial": "12"}
    assert json.loads(second["fields"]) == {"voltage": 9007199254740993, "note": "NaN"}
    assert second["product_imei"] is None


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("logs.txt", b"", "add --format"),
        ("logs.csv", b"app_name,timestamp,colour\n", "'colour' is not a known column"),
        ("logs.csv", b"app_name,app_name\n", "named twice"),
        ("logs.csv", b"app_name,timestamp\n\xff,2024-01-31\n", "not UTF-8"),
        ("logs.ndjson.gz", b"plain", "gzip data is damaged"),
    ],
)
def test_a_file_that_cannot_be_read(run: Run, tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    result = run("import", tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


def test_a_missing_file(run: Run, tmp_path: Path) -> None:
    result = run("import", tmp_path / "none.csv")
    assert (result.exit_code, result.stderr) == (1, f"error: {tmp_path / 'none.csv'}: No such file or directory\n")


def test_stdin_with_a_format(run: Run) -> None:
    assert run("import", "-", "--format", "ndjson", stdin=lines(LOG)).stdout == "Imported 1 logs from stdin\n"
    assert run("import", "-", stdin=lines(LOG)).exit_code == 1


def test_repairs_keep_free_ids_and_the_next_one_lies_beyond(run: Run, query: Query, tmp_path: Path) -> None:
    first = run("repairs", "add", "--product-imei", "352099001761481", "--process", "Replaced")
    assert (first.exit_code, first.stdout) == (0, "1\n")
    file = tmp_path / "repairs.csv"
    file.write_text(
        "repair_id,product_imei,arrival_date,measured_battery_capacity,process\n"
        ",352099001761481,,,\n"
        "1,352099001761481,,,\n"
        "7,352099001761481,2024-01-31,2363,Repair and Return\n"
        "x,352099001761481,,,\n"
        "8,12,,much,Lost\n"
    )
    result = run("import", "--table", "repairs", file)
    assert result.exit_code == 1
    assert result.stdout == f"Imported 2 repairs from {file}, rejected 3\n"
    assert "repairs.csv:3: repair_id: there is a repair 1 already" in result.stderr
    assert "repairs.csv:5: repair_id: expected an integer" in result.stderr
    assert "repairs.csv:6: process: " in result.stderr
    assert [row["repair_id"] for row in query("select repair_id from repairs order by 1")] == [1, 7, 8]
    assert run("repairs", "add", "--product-imei", "352099001761481").stdout == "9\n"


def test_a_bad_repair_is_an_error(run: Run) -> None:
    result = run("repairs", "add", "--product-imei", "12")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "product_imei: expected exactly 15 digits" in result.stderr


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

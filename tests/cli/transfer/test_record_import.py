import gzip
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest
import zstandard

from factory_logs.cli.transfer import record_import
from tests.cli.conftest import Query, Run
from tests.cli.factories import LOG, lines
from tests.cli.transfer.interruptions import (
    changed_after_the_first_read,
    connections_cut_at_commit,
    import_waits_after,
)

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.slow
def test_the_examples_are_imported_and_exported_unchanged(run: Run, query: Query, tmp_path: Path) -> None:
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


def test_bad_lines_are_listed_and_the_good_ones_stored(run: Run, query: Query, tmp_path: Path) -> None:
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


def test_a_record_that_the_database_refuses_is_an_error(run: Run, query: Query, tmp_path: Path) -> None:
    for name, text in {
        "a.ndjson": lines(LOG, LOG | {"app_name": "refused"}),
        "a.lp": "m f=1 1\nrefused f=1 1\n",
    }.items():
        file = tmp_path / name
        file.write_text(text)
        query("ALTER TABLE factory_logs ADD CONSTRAINT no_refused CHECK (app_name <> 'refused')")
        try:
            result = run("import", file)
        finally:
            query("ALTER TABLE factory_logs DROP CONSTRAINT no_refused")
        assert result.exit_code == 1
        assert f"error: {file}: the database refuses a record: " in result.stderr
        assert 'violates check constraint "no_refused"' in result.stderr
        assert result.stderr.count("Failing row contains") == 1
        assert query("select count(*) from factory_logs") == [{"count": 0}]
    assert run("import", tmp_path / "a.ndjson", tmp_path / "a.lp").exit_code == 0
    assert query("select count(*) from factory_logs") == [{"count": 4}]


def test_a_compressed_file_may_have_more_than_one_batch(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "logs.ndjson.gz"
    with gzip.open(file, "wt") as out:
        out.writelines(lines(LOG | {"fields": {"n": n}}) for n in range(2500))
    assert run("import", file).stdout == f"Imported 2500 logs from {file}\n"
    rows = query("select fields->>'n' as n from factory_logs order by factory_log_id")
    assert [row["n"] for row in rows] == [str(n) for n in range(2500)]

    file.write_bytes(file.read_bytes()[:-20])
    damaged = run("import", file)
    assert damaged.exit_code == 1
    assert "damaged or truncated" in damaged.stderr


def test_csv_cells_become_values_of_their_type(run: Run, query: Query, tmp_path: Path) -> None:
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


FILES = {
    "logs.ndjson": lines(LOG, LOG | {"fields": {"n": 2}}),
    "logs.json": json.dumps([LOG, LOG | {"fields": {"n": 2}}], indent=1),
    "logs.csv": "app_name;timestamp;tags.jig_id\ntiger;2024-01-31;J-07\ntiger;2024-02-01;J-07\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_second_run_adds_nothing_even_under_another_file_name(
    run: Run, query: Query, tmp_path: Path, name: str
) -> None:
    text, suffix = FILES[name], Path(name).suffix
    (tmp_path / name).write_text(text)
    (tmp_path / f"packed{suffix}.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / f"packed{suffix}.zst").write_bytes(zstandard.compress(text.encode()))
    assert run("import", tmp_path / name).stdout == f"Imported 2 logs from {tmp_path / name}\n"
    for again in (name, f"packed{suffix}.gz", f"packed{suffix}.zst"):
        result = run("import", tmp_path / again, "--created-by", "another")
        assert result.exit_code == 0
        assert result.stdout == f"Imported 0 logs from {tmp_path / again}; 2 were imported before\n"
    stdin = run("import", "-", "--format", suffix[1:], stdin=text)
    assert stdin.stdout == "Imported 0 logs from stdin; 2 were imported before\n"
    assert query("select count(*) from factory_logs") == [{"count": 2}]


def test_the_same_text_with_other_options_is_another_import(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "logs.csv"
    file.write_text("app_name,timestamp,jig\ntiger,2024-01-31,07\n")
    assert "--tag-column or --field-column makes it one" in run("import", file).stderr
    assert run("import", file, "--tag-column", "jig").stdout == f"Imported 1 logs from {file}\n"
    assert run("import", file, "--field-column", "jig").stdout == f"Imported 1 logs from {file}\n"
    stored = query("select tags, fields from factory_logs order by factory_log_id")
    assert stored == [{"tags": '{"jig": "07"}', "fields": None}, {"tags": None, "fields": '{"jig": "07"}'}]
    assert "app_name is a separate column" in run("import", file, "--tag-column", "app_name").stderr


@pytest.mark.parametrize("name", ["logs.ndjson", "logs.json", "logs.csv"])
def test_an_interrupted_import_continues(
    run: Run, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Some parts are stored and others are not, as after a crash between two commits."""
    monkeypatch.setattr(record_import, "PART_RECORDS", 10)
    file = tmp_path / name
    logs = [LOG | {"fields": {"n": n}} for n in range(95)]
    rows = "".join(f"tiger,2024-01-31,{n}\n" for n in range(95))
    csv_text = f"app_name,timestamp,fields.n\n{rows}"
    file.write_text({"logs.ndjson": lines(*logs), "logs.json": json.dumps(logs), "logs.csv": csv_text}[name])
    assert run("import", file).stdout == f"Imported 95 logs from {file}\n"
    assert query("select count(*), sum(logs) as logs from imports") == [{"count": 10, "logs": 95}]
    query("delete from factory_logs where (fields->>'n')::int / 10 in (0, 3, 9)")
    query("delete from imports where part in (0, 3, 9)")
    assert run("import", file).stdout == f"Imported 25 logs from {file}; 70 were imported before\n"
    numbers = query("select count(*), count(distinct fields->>'n') as numbers from factory_logs")
    assert numbers == [{"count": 95, "numbers": 95}]


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_import_reports_the_stored_logs_and_a_second_run_stores_none_twice(
    run: Run, migrated_url: str, query: Query, tmp_path: Path, signal_number: signal.Signals
) -> None:
    file = tmp_path / "long.ndjson"
    file.write_text(lines(*(LOG | {"fields": {"n": n, "text": "x" * 1000}} for n in range(20_000))))
    with import_waits_after(migrated_url, parts=2) as waiting:
        process = subprocess.Popen(
            [sys.executable, "-m", "factory_logs", "import", str(file)],
            env=os.environ | {"FACTORY_LOGS_DATABASE_URL": migrated_url},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        waiting()
        os.killpg(process.pid, signal_number)
        output, errors = process.communicate(timeout=300)
    assert output == ""
    stored = query("select count(*) from factory_logs")[0]["count"]
    assert 0 < stored < 20_000
    if signal_number is not signal.SIGKILL:
        assert process.returncode == 130
        assert f"it continues where it stopped; {stored} logs of {file} are stored" in errors
        assert "Traceback" not in errors
    again = run("import", file)
    assert again.stdout == f"Imported {20_000 - stored} logs from {file}; {stored} were imported before\n"
    assert query("select count(distinct fields->>'n') as numbers from factory_logs") == [{"numbers": 20_000}]


@pytest.mark.slow
def test_concurrent_imports_of_one_file_store_it_once(
    run: Run, migrated_url: str, query: Query, tmp_path: Path
) -> None:
    file = tmp_path / "logs.ndjson"
    file.write_text(lines(*(LOG | {"fields": {"n": n}} for n in range(3000))))
    command = [sys.executable, "-m", "factory_logs", "import", str(file)]
    environment = os.environ | {"FACTORY_LOGS_DATABASE_URL": migrated_url}
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert query("select count(*) from factory_logs") == [{"count": 3000}]
    assert sum(int(output.split()[1]) for output in outputs) == 3000


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["ndjson", "json", "csv"])
def test_bad_records_go_to_a_file_that_can_be_corrected_and_imported(
    run: Run, query: Query, tmp_path: Path, suffix: str
) -> None:
    bad = [LOG | {"product_imei": "12"}, LOG | {"repair_id": 9}]
    texts = {
        "ndjson": lines(LOG, *bad, "{"),
        "json": json.dumps([LOG, *bad], indent=2),
        "csv": 'app_name;timestamp;product_imei;repair_id;fields.note\ntiger;2024-01-31;;;"a;b"\n'
        'tiger;2024-01-31;12;;"a;b"\ntiger;2024-01-31;;9;"two\nlines"\ntiger\n',
    }
    file, rejected = tmp_path / f"logs.{suffix}", tmp_path / f"rejected.{suffix}"
    file.write_text(texts[suffix])
    count = 2 if suffix == "json" else 3
    result = run("import", file, "--rejected", rejected)
    assert (result.exit_code, result.stdout) == (1, f"Imported 1 logs from {file}, rejected {count}\n")
    again = run("import", file, "--rejected", rejected)
    assert again.stdout == f"Imported 0 logs from {file}; 1 were imported before and {count} rejected\n"
    text = rejected.read_text()
    assert text.count("product_imei: expected exactly 15 digits") == 1
    assert text.count("repair_id: there is no repair 9") == 1
    right = text.replace('"12"', '"352099001761481"').replace(";12;", ";352099001761481;")
    right = right.replace('"repair_id": 9', '"repair_id": null').replace(";9;", ";;")
    rejected.write_text(right.replace("\n{\n", "\n").replace("\ntiger\n", "\n"))
    assert run("import", rejected).stdout == f"Imported 2 logs from {rejected}\n"
    stored = query("select product_imei, fields from factory_logs order by factory_log_id")
    assert [row["product_imei"] for row in stored] == [None, "352099001761481", None]
    if suffix == "csv":
        notes = [json.loads(row["fields"])["note"] for row in stored]
        assert notes == ["a;b", "a;b", "two\nlines"]


def test_a_rejected_row_that_begins_like_a_comment_can_be_corrected_and_imported(
    run: Run, query: Query, tmp_path: Path
) -> None:
    file, rejected = tmp_path / "logs.csv", tmp_path / "rejected.csv"
    file.write_text('app_name,timestamp,product_imei\n# 7 "new",2024-01-31,12\n')
    assert run("import", file, "--rejected", rejected).exit_code == 1
    rejected.write_text(rejected.read_text().replace(",12\n", ",352099001761481\n"))
    assert run("import", rejected).stdout == f"Imported 1 logs from {rejected}\n"
    assert query("select app_name from factory_logs") == [{"app_name": '# 7 "new"'}]


def test_bad_records_are_in_the_file_before_their_part_is_committed(
    run: Run, query: Query, migrated_url: str, tmp_path: Path
) -> None:
    file, rejected = tmp_path / "logs.ndjson", tmp_path / "rejected.ndjson"
    file.write_text(lines(LOG, '{"n":1}', LOG, '{"n":2}'))
    with connections_cut_at_commit(migrated_url):
        cut = run("import", file, "--rejected", rejected)
    assert cut.exit_code == 1
    assert cut.stderr.endswith(f"it continues where it stopped; 0 logs of {file} are stored\n")
    assert query("select 1 from factory_logs union all select 1 from imports") == []
    assert rejected.read_text().count('{"n":') == 2
    assert run("import", file, "--rejected", rejected).stdout == f"Imported 2 logs from {file}, rejected 2\n"
    assert rejected.read_text().count('{"n":') == 2


def test_the_imported_file_cannot_be_the_file_for_rejected_records(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "logs.ndjson"
    file.write_text("bad\n")
    result = run("import", file, "--rejected", tmp_path / ".." / tmp_path.name / "logs.ndjson")
    assert (result.exit_code, result.stderr) == (1, f"error: {file}: --rejected must be another file\n")
    assert file.read_text() == "bad\n"


def test_only_the_first_bad_records_are_listed(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "logs.ndjson"
    file.write_text("bad\n" * 1500)
    result = run("import", file)
    assert (result.exit_code, result.stdout) == (1, f"Imported 0 logs from {file}, rejected 1500\n")
    named = result.stderr.splitlines()
    assert len(named) == 21
    assert named[-1] == f"{file}: 1480 more; --rejected FILE lists all"


def test_repairs_are_stored_once_too(run: Run, query: Query, tmp_path: Path) -> None:
    for name, text in {
        "repairs.csv": "product_imei,process\n352099001761481,Replaced\n12,\n",
        "repairs.json": '[{"product_imei": "352099001761481"}, {"product_imei": "12"}]',
    }.items():
        (tmp_path / name).write_text(text)
        arguments = ["import", "--table", "repairs", tmp_path / name]
        first = run(*arguments, "--rejected", tmp_path / f"rejected-{name}")
        assert first.stdout == f"Imported 1 repairs from {tmp_path / name}, rejected 1\n"
        again = run(*arguments)
        assert again.stdout == f"Imported 0 repairs from {tmp_path / name}; 1 were imported before and 1 rejected\n"
        right = (tmp_path / f"rejected-{name}").read_text().replace("\n12", "\n352099001761481")
        (tmp_path / name).write_text(right.replace('"12"', '"352099001761481"'))
        assert run(*arguments).stdout == f"Imported 1 repairs from {tmp_path / name}\n"
    assert query("select count(*) from repairs") == [{"count": 4}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("logs.json", json.dumps([LOG] * 3)[:-1]),
        ("logs.csv", 'app_name,timestamp\ntiger,2024-01-31\n"tiger,2024-01-31\n'),
        ("logs.csv", "app_name,timestamp\ntiger,2024-01-31\n\udcff,2024-01-31\n"),
    ],
)
def test_a_file_that_cannot_be_read_to_its_end_stores_nothing(
    run: Run, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    monkeypatch.setattr(record_import, "PART_RECORDS", 1)
    (tmp_path / name).write_bytes(content.encode(errors="surrogateescape"))
    result = run("import", tmp_path / name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {tmp_path / name}")
    assert query("select 1 from factory_logs") == []


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("logs.txt", b"", "add --format"),
        ("logs.csv", b"app_name,timestamp,colour\n", "'colour' is not a known column"),
        ("logs.csv", b"app_name,app_name\n", "occurs twice"),
        ("logs.csv", b"app_name,timestamp\n\xff,2024-01-31\n", "not UTF-8"),
        ("logs.ndjson.gz", b"plain", "gzip data is damaged"),
    ],
)
def test_a_file_that_cannot_be_read_is_an_error(
    run: Run, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    result = run("import", tmp_path / name)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert message in result.stderr


def test_a_missing_file_is_an_error(run: Run, tmp_path: Path) -> None:
    result = run("import", tmp_path / "none.csv")
    assert (result.exit_code, result.stderr) == (1, f"error: {tmp_path / 'none.csv'}: No such file or directory\n")


def test_stdin_can_be_imported_with_a_format(run: Run) -> None:
    assert run("import", "-", "--format", "ndjson", stdin=lines(LOG)).stdout == "Imported 1 logs from stdin\n"
    assert run("import", "-", stdin=lines(LOG)).exit_code == 1


def test_imported_repairs_have_their_own_ids_and_new_ones_get_higher_ids(
    run: Run, query: Query, tmp_path: Path
) -> None:
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
    assert "repairs.csv:3: repair_id: the repair 1 already exists" in result.stderr
    assert "repairs.csv:5: repair_id: expected an integer" in result.stderr
    assert "repairs.csv:6: process: " in result.stderr
    assert [row["repair_id"] for row in query("select repair_id from repairs order by 1")] == [1, 7, 8]
    assert run("repairs", "add", "--product-imei", "352099001761481").stdout == "9\n"


def test_a_bad_repair_is_an_error(run: Run) -> None:
    result = run("repairs", "add", "--product-imei", "12")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "product_imei: expected exactly 15 digits" in result.stderr


def test_a_name_of_a_repair_that_is_not_text_is_an_error(run: Run) -> None:
    result = run("repairs", "add", "--product-imei", "352099001761481", "--created-by", "ann\udcff")
    assert (result.exit_code, result.stderr) == (1, "error: --created-by must be printable text\n")


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_changes_between_its_two_reads_stores_only_the_parts_that_were_read_first(
    run: Run, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(record_import, "PART_RECORDS", 1)
    file = tmp_path / name
    file.write_text(FILES[name])
    before, _, after = FILES[name].rpartition("2")
    changed = f"{before}7{after}"  # in the last record
    with monkeypatch.context() as patch:
        changed_after_the_first_read(patch, file, changed)
        result = run("import", file)
    assert result.exit_code == 1
    assert f"{file} has changed while it was imported; parts of its earlier content are stored" in result.stderr
    assert query("select count(*) from factory_logs") == [{"count": 1}]

    file.write_text(FILES[name])
    assert run("import", file).exit_code == 0
    assert query("select count(*) from factory_logs") == [{"count": 2}]


def test_a_file_that_is_shorter_at_its_second_read_is_an_error(
    run: Run, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_import, "PART_RECORDS", 1)
    file = tmp_path / "logs.ndjson"
    file.write_text(lines(LOG, LOG, LOG))
    changed_after_the_first_read(monkeypatch, file, lines(LOG))
    result = run("import", file)
    assert result.exit_code == 1
    assert "has changed while it was imported" in result.stderr
    assert query("select count(*) from factory_logs") == [{"count": 1}]


def test_a_file_that_grows_while_it_is_imported_is_stored_up_to_its_first_end(
    run: Run, query: Query, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "logs.ndjson"
    file.write_text(lines(LOG, LOG))
    changed_after_the_first_read(monkeypatch, file, lines(LOG, LOG, LOG))
    assert run("import", file).exit_code == 0
    assert query("select count(*) from factory_logs") == [{"count": 2}]

import csv
import gzip
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.influxdb.dump import formats, partition
from factory_logs.influxdb.dump.formats import csv_line_groups, line_groups
from factory_logs.influxdb.dump.merge import PartMerger
from factory_logs.influxdb.dump.partition import Partitioner
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.record_limits import RecordLimits
from tests.cli.conftest import Query, Run
from tests.cli.transfer.interruptions import changed_after_the_first_read, table_locked
from tests.influxdb.strategies import STORABLE_POINTS, Point, Unsigned

EXPORT = """\
# INFLUXDB EXPORT: 1677-09-21T00:12:43Z - 2262-04-11T23:47:16Z
# DDL
CREATE DATABASE jigs WITH NAME autogen
# DML
# CONTEXT-DATABASE:jigs
# CONTEXT-RETENTION-POLICY:autogen
# writing tsm data
tiger,jig_id=J-07,product_imei=352099001761481 note="two
lines, \\"quoted\\"" 1706708700123456789
tiger,jig_id=J-07,product_imei=352099001761481 passed=false 1706708700123456789
tiger,jig_id=J-07,product_imei=352099001761481 passed=true 1706708701000000000
tiger,jig_id=J-07,product_imei=352099001761481 voltage=3.28 1706708700123456789
tiger,jig_id=J-07,product_imei=352099001761481 voltage=3 1706708701000000000
# writing wal data
tiger,jig_id=J-07,product_imei=352099001761481 passed=true 1706708700123456789
tiger,jig_id=J-07,product_imei=352099001761481 cycles=12i 1706708700123456789
"""
LOGS = (
    "select app_name, product_imei, repair_id, timestamp, tags, fields, created_by from factory_logs order by timestamp"
)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    file = tmp_path / "jigs.lp"
    file.write_text(EXPORT)
    return file


@pytest.mark.parametrize("lines", [EXPORT, EXPORT[EXPORT.index("tiger") :]], ids=["export", "lines alone"])
def test_a_byte_order_mark_is_not_part_of_the_first_line(lines: str) -> None:
    text = b"\xef\xbb\xbf" + lines.encode()
    without = list(line_groups([lines.encode()], 10**6))
    assert list(line_groups([text], 10**6)) == without
    assert list(line_groups([text[:2], text[2:]], 10**6))[-1] == without[-1]


def test_an_export_becomes_one_log_for_each_point(run: Run, query: Query, export: Path) -> None:
    result = run("import", export, "--created-by", "move")
    assert (result.exit_code, result.stdout, result.stderr) == (0, f"Imported 2 logs from {export}\n", "")
    first, second = query(LOGS)
    assert (first["app_name"], first["product_imei"], first["created_by"]) == ("tiger", "352099001761481", "move")
    assert first["timestamp"] == datetime(2024, 1, 31, 13, 45, 0, 123456)
    assert json.loads(first["tags"]) == {"jig_id": "J-07"}
    assert json.loads(first["fields"]) == {
        "passed": True, "voltage": 3.28, "cycles": 12, "note": 'two\nlines, "quoted"',
    }  # fmt: skip
    assert json.loads(second["fields"]) == {"passed": True, "voltage": 3.0}


def test_a_second_run_adds_nothing_even_under_another_file_name(run: Run, query: Query, export: Path) -> None:
    run("import", export)
    packed = export.with_name("again.lp.gz")
    packed.write_bytes(gzip.compress(export.read_bytes()))
    for arguments in ([export], [packed], [export, "--jobs", "1"]):
        again = run("import", *arguments)
        assert again.exit_code == 0
        assert again.stdout == f"Imported 0 logs from {arguments[0]}; 2 were imported before\n"
    assert run("import", "-", "--format", "lp", stdin=EXPORT).stdout.startswith("Imported 0 logs from stdin")
    assert query("select count(*) from factory_logs") == [{"count": 2}]


@pytest.mark.slow
def test_an_interrupted_import_continues(run: Run, query: Query, export: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some parts are stored and others are not, as after a crash between two commits."""
    monkeypatch.setattr(partition, "PART_BYTES", 50)
    export.write_text("".join(f"m,n={n} f={n}i,g=1 {n}\n" for n in range(200)))
    run("import", export, "--jobs", "1")
    parts = query("select count(*), sum(logs) as logs from imports")[0]
    assert parts["count"] > 20
    assert parts["logs"] == 200
    query("delete from factory_logs where (fields->>'f')::int in (select n from generate_series(0, 199) n)")
    kept = query("delete from imports where part % 2 = 0 returning logs")
    result = run("import", export, "--jobs", "1")
    missing = sum(row["logs"] for row in kept)
    assert result.stdout == f"Imported {missing} logs from {export}; {200 - missing} were imported before\n"
    assert query("select count(*), count(distinct fields->>'f') as numbers from factory_logs") == [
        {"count": missing, "numbers": missing}
    ]


def test_several_processes_store_the_same_as_one(
    run: Run, query: Query, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(partition, "PART_BYTES", 1000)
    export.write_text("".join(f"m,n={n} f={n}i {n}\n" for n in range(300)))
    assert run("import", export, "--jobs", "2").stdout == f"Imported 300 logs from {export}\n"
    assert query("select count(distinct fields->>'f') as numbers from factory_logs") == [{"numbers": 300}]
    assert query("select count(*) > 2 as several from imports") == [{"several": True}]


def test_bad_lines_go_to_a_file_that_can_be_corrected_and_imported(
    run: Run, query: Query, export: Path, tmp_path: Path
) -> None:
    with export.open("a") as file:
        file.write(
            "tiger f= 1\n"
            "tiger,product_imei=12 f=1 1\n"
            "tiger,product_imei=12 g=1 1\n"
            "tiger,repair_id=9 f=1 1\n"
            'tiger,repair_id=9 s="\n" 1\n'
            "tiger f=1\n"
            "tiger timestamp=1i 2\n"
        )
        file.buffer.write(b'tiger f="\xff" 3\n')
    rejected = tmp_path / "rejected.lp"
    result = run("import", export, "--rejected", rejected)
    assert (result.exit_code, result.stdout) == (1, f"Imported 2 logs from {export}, rejected 8 lines\n")
    assert sorted(re.findall(r"^.*lp:\d+: ([^:\n]+)", result.stderr, re.MULTILINE)) == sorted(
        ["unable to parse 'tiger f= 1'", "product_imei", "product_imei", "repair_id", "repair_id",
         "unable to parse 'tiger f=1'", "fields.timestamp", "the line is not UTF-8"]
    )  # fmt: skip
    text = rejected.read_bytes()
    assert b"# CONTEXT-DATABASE:jigs\n" in text
    assert b'tiger,repair_id=9 s="\n" 1\n' in text
    assert b'tiger f="\xff" 3\n' in text
    rejected.write_bytes(text.replace(b"repair_id=9", b"jig=9").replace(b'"\xff"', b'"y"').replace(b"_imei=12", b"=1"))
    assert run("import", rejected).stdout.startswith("Imported 3 logs")
    fields = [json.loads(row["fields"]) for row in query(LOGS + " limit 3")]
    assert sorted(map(str, fields)) == sorted(map(str, [{"f": 1.0, "g": 1.0}, {"f": 1.0, "s": "\n"}, {"f": "y"}]))


def test_equal_points_of_two_databases_are_two_logs(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "all.lp"
    contexts = ["DATABASE:a\n# CONTEXT-RETENTION-POLICY:x", "DATABASE:a\n# CONTEXT-RETENTION-POLICY:y", "DATABASE:b"]
    file.write_text("".join(f"# CONTEXT-{context}\nm f=1 1\nm g=1 1\n" for context in contexts))
    assert run("import", file).stdout == f"Imported 3 logs from {file}\n"


def test_the_order_of_tags_makes_no_difference(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plain.lp"
    file.write_text("m,a=1,b=2 f=1 1\nm,b=2,a=1 g=1 01\nm,b=2,a=1 g=1 1 \r\n")
    assert run("import", file).stdout == f"Imported 1 logs from {file}\n"


def test_times_are_read_in_the_given_unit(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "plain.lp"
    file.write_text("m f=1 1706708700\n")
    assert run("import", file, "--precision", "s").exit_code == 0
    assert query("select timestamp from factory_logs") == [{"timestamp": datetime(2024, 1, 31, 13, 45)}]
    assert "--precision must be one of n, ns" in run("import", file, "--precision", "d").stderr


def test_csv_of_a_query_grouped_by_all_tags_is_imported(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "jigs.csv"
    file.write_text(
        "name,tags,time,cycles,note,passed,voltage\n"
        'tiger,"jig_id=J,07,product_imei=352099001761481,repair_id=",1706708700123456789,12,"two\n""lines""",true,3.28\n'
        "name,tags,time,f\n"
        "koala,,2024-01-31T13:45:01.000000001Z,-1e5\n"
        "koala,host=a,now,1\n"
        "koala,host=a\n"
    )
    result = run("import", file, "--format", "influx-csv")
    assert (result.exit_code, result.stdout) == (1, f"Imported 2 logs from {file}, rejected 2 lines\n")
    assert f"{file}:6: unable to parse" in result.stderr
    first, second = query(LOGS)
    assert (first["product_imei"], json.loads(first["tags"])) == ("352099001761481", {"jig_id": "J,07"})
    assert json.loads(first["fields"]) == {"cycles": 12, "note": 'two\n"lines"', "passed": True, "voltage": 3.28}
    assert (second["tags"], second["timestamp"]) == (None, datetime(2024, 1, 31, 13, 45, 1))
    assert run("import", file, "--format", "influx-csv").stdout.startswith("Imported 0 logs")


def test_csv_that_cannot_be_read_is_an_error(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "jigs.csv"
    file.write_bytes(b"name,time,note\ntiger,1706708700123456789,good\ntiger,1706708700123456790,a\rb\n")
    result = run("import", file, "--format", "influx-csv")
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {file}: ")
    assert query("select 1 from factory_logs") == []


def test_csv_without_a_tags_column_needs_the_names_of_the_tag_columns(run: Run, query: Query, tmp_path: Path) -> None:
    file = tmp_path / "jigs.csv"
    file.write_text("name,time,jig id,f\ntiger,1706708700123,J 07,1\n")
    arguments = ["--format", "influx-csv", "--precision", "ms", "--tag-column", "jig id"]
    assert run("import", file, *arguments).exit_code == 0
    (row,) = query(LOGS)
    assert (json.loads(row["tags"]), json.loads(row["fields"])) == ({"jig id": "J 07"}, {"f": 1})
    assert row["timestamp"] == datetime(2024, 1, 31, 13, 45, 0, 123000)


def test_a_file_that_cannot_be_read_to_its_end_stores_nothing(run: Run, query: Query, export: Path) -> None:
    packed = export.with_name("jigs.lp.gz")
    packed.write_bytes(gzip.compress(export.read_bytes())[:-9])
    result = run("import", packed)
    assert (result.exit_code, result.stderr) == (1, f"error: {packed}: the gzip data is damaged or truncated\n")
    assert query("select count(*) from factory_logs") == [{"count": 0}]
    assert "No such file" in run("import", export.with_name("none.lp")).stderr
    assert "contains logs" in run("import", export, "--table", "repairs").stderr


# Merging, without the database


@pytest.mark.slow
@given(
    st.lists(STORABLE_POINTS.filter(lambda point: point.time is not None), max_size=8),
    st.lists(st.integers(0, 7), max_size=8),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=60)
def test_the_separate_lines_of_a_point_become_one_log(
    tmp_path_factory: pytest.TempPathFactory, points: list[Point], again: list[int], parts: int, shuffled: random.Random
) -> None:
    """The input has one line for each field, in any order, some twice; the logs are those of the points."""
    expected: dict[object, dict[str, object]] = {}
    for point in points:
        expected.setdefault((point.measurement, tuple(sorted(point.tags.items())), point.time), {}).update(
            point.stored_fields
        )
    lines = [line for point in points for line in torn(point, shuffled)]
    lines += [line for index in again if index < len(points) for line in torn_as_it_is_now(points[index], expected)]
    folder = tmp_path_factory.mktemp("parts")
    partitioner = Partitioner(folder, parts * partition.PART_BYTES, (), 1)
    for group in line_groups(["\n".join(lines).encode()], 10_000):
        partitioner.add(group)
    merger = PartMerger(RecordLimits(10**6, 32), 1, 10_000)
    merged = [merger.merge(part.path) for part in partitioner.parts()]
    assert [part.bad_lines or part.bad_series or part.bad_points for part in merged] == [{}] * parts
    logs = [log for part in merged for log in part.logs]
    assert sorted(map(comparable, logs)) == sorted(
        str((name, dict(tags), datetime(1970, 1, 1) + timedelta(microseconds=time // 1000), sorted(fields.items())))  # type: ignore[operator]
        for (name, tags, time), fields in expected.items()  # type: ignore[misc]
    )


def torn(point: Point, shuffled: random.Random) -> list[str]:
    lines = [
        Point(point.measurement, point.tags, {key: value}, point.time).line() for key, value in point.fields.items()
    ]
    shuffled.shuffle(lines)
    return lines


def torn_as_it_is_now(point: Point, expected: dict[object, dict[str, object]]) -> list[str]:
    now = expected[point.measurement, tuple(sorted(point.tags.items())), point.time]
    return [
        Point(point.measurement, point.tags, {key: as_sent(value)}, point.time).line()
        for key, value in now.items()
        if key in point.fields and point.stored_fields[key] == value
    ]


def as_sent(value: object) -> object:
    """A number above a signed 64-bit integer must have had a `u`."""
    return Unsigned(value) if isinstance(value, int) and value >= 2**63 else value


def comparable(log: NewLog) -> str:
    tags, fields = json.loads(log.tags or "{}"), json.loads(log.fields or "{}")
    return str((log.app_name, dict(sorted(tags.items())), log.timestamp, sorted(fields.items())))


# Stopping


@pytest.mark.slow
def test_a_stopped_import_completes_its_current_parts_and_continues_next_time(
    run: Run, migrated_url: str, query: Query, tmp_path: Path
) -> None:
    file = tmp_path / "long.lp"
    file.write_text("".join(f'm,n={n} s="{"x" * 20_000}" {n}\n' for n in range(1000)))
    command = [sys.executable, "-m", "factory_logs", "import", str(file), "--jobs", "2"]
    environment = os.environ | {"FACTORY_LOGS_DATABASE_URL": migrated_url}
    with table_locked(migrated_url) as waiting:
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        waiting()
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        time.sleep(2)  # until it has taken the signal
    output, errors = process.communicate(timeout=300)  # the table is unlocked again
    assert (process.returncode, output) == (130, "")
    assert "Stopped. Run the command again" in errors
    assert "Traceback" not in errors
    stored = query("select count(*) from factory_logs")[0]["count"]
    assert 0 < stored < 1000
    again = run("import", file, "--jobs", "1")
    assert again.stdout == f"Imported {1000 - stored} logs from {file}; {stored} were imported before\n"


def test_a_dump_that_changes_between_its_two_reads_stores_nothing(
    run: Run, query: Query, export: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        changed_after_the_first_read(patch, export, EXPORT.replace("3.28", "3.29"))
        result = run("import", export)
    assert result.exit_code == 1
    assert f"{export} has changed while it was imported; nothing of it is stored" in result.stderr
    assert query("select count(*) from factory_logs") == [{"count": 0}]
    export.write_text(EXPORT)
    assert run("import", export).exit_code == 0
    assert query("select count(*) from factory_logs") == [{"count": 2}]


def test_an_endless_line_of_csv_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "LONGEST_CELL", 1000)
    endless = (b"x" * 100 for _ in count())
    with pytest.raises(csv.Error, match="line is longer than 1000 characters"):
        list(csv_line_groups(endless, 1, ()))

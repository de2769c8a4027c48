import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from factory_logs.cli.output import CommandError
from factory_logs.cli.transfer.rejected_file import RejectedFile
from factory_logs.errors import FieldError
from factory_logs.influxdb.dump import partition
from factory_logs.influxdb.dump.merge import RejectedDumpLine
from tests.cli.conftest import Query, Run
from tests.cli.transfer.interruptions import connections_cut_at_commit

SOURCE = bytes(range(32))


def bad(number: int) -> RejectedDumpLine:
    return RejectedDumpLine(number, "", f"bad{number}", [FieldError("", "no fields")])


def numbers(file: Path) -> list[int]:
    return sorted(int(number) for number in re.findall(rb"^bad(\d+)", file.read_bytes(), re.MULTILINE))


@pytest.fixture
def rejected(tmp_path: Path) -> RejectedFile:
    return RejectedFile(tmp_path / "rejected.lp", "jigs.lp", SOURCE)


def test_a_part_that_is_written_twice_is_in_the_file_once(rejected: RejectedFile) -> None:
    for part in (1, 2, 1):
        rejected.add(part, [bad(part)])
    rejected.tidy()
    assert numbers(rejected.path) == [1, 2]


def test_a_section_cut_off_at_any_byte_leaves_no_line(rejected: RejectedFile) -> None:
    rejected.add(1, [bad(1)])
    before = rejected.path.stat().st_size
    rejected.add(2, [bad(2), bad(3)])
    whole = rejected.path.read_bytes()
    for size in range(before, len(whole)):
        rejected.path.write_bytes(whole[:size])
        rejected.add(2, [bad(2), bad(3)])
        rejected.add(3, [bad(4)])
        rejected.tidy()
        assert numbers(rejected.path) == [1, 2, 3, 4], f"torn at {size}"


def test_lines_of_other_programs_in_the_file_stay(rejected: RejectedFile) -> None:
    rejected.path.write_bytes(b"bad7 of an older import, without its line end")
    rejected.path.chmod(0o640)
    other = RejectedFile(rejected.path, "other.lp", bytes(32))
    other.add(1, [bad(1)])
    rejected.add(1, [bad(2)])
    rejected.add(1, [bad(2)])
    other.add(2, [bad(3)])
    rejected.tidy()
    assert numbers(rejected.path) == [1, 2, 3, 7]
    assert rejected.path.stat().st_mode & 0o777 == 0o640
    assert [file.name for file in rejected.path.parent.iterdir()] == ["rejected.lp"]


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"none/rejected\.lp: No such file or directory"):
        RejectedFile(tmp_path / "none" / "rejected.lp", "jigs.lp", SOURCE).check()
    with pytest.raises(CommandError, match="/dev/full: No space left on device"):
        RejectedFile(Path("/dev/full"), "jigs.lp", SOURCE).add(1, [bad(1)])


def test_bad_lines_are_in_the_file_before_their_part_is_committed(
    run: Run, query: Query, migrated_url: str, tmp_path: Path
) -> None:
    dump, report = tmp_path / "jigs.lp", tmp_path / "rejected.lp"
    dump.write_text("m f=1 1\nbad1\nm f=1 2\nbad2\n")
    with connections_cut_at_commit(migrated_url):
        assert run("import", dump, "--rejected", report, "--jobs", "1").exit_code == 1
    assert query("select count(*) from imports") == [{"count": 0}]
    assert numbers(report) == [1, 2]
    again = run("import", dump, "--rejected", report, "--jobs", "1")
    assert again.stdout == f"Imported 2 logs from {dump}, rejected 2 lines\n"
    assert numbers(report) == [1, 2]


@pytest.mark.slow
def test_each_bad_line_is_in_the_file_once_despite_kills_at_any_time(
    run: Run, query: Query, migrated_url: str, tmp_path: Path
) -> None:
    """Kill the command alone, or with its processes, which otherwise finish their part."""
    dump, report = tmp_path / "jigs.lp", tmp_path / "rejected.lp"
    dump.write_text("".join(f"m,n={n} f=1 {n}\nbad{n}\n" for n in range(1000)))
    seeded = random.Random(5)
    groups: list[int] = []
    patch = f"from factory_logs.influxdb.dump import partition; partition.PART_BYTES = {dump.stat().st_size // 20}"
    command = [sys.executable, "-c", f"{patch}; from factory_logs.cli import app; app()", "import", str(dump)]
    for stored in sorted(seeded.sample(range(16), 3)):
        process = subprocess.Popen(
            [*command, "--rejected", str(report), "--jobs", "2"],
            env=os.environ | {"FACTORY_LOGS_DATABASE_URL": migrated_url},
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and query("select count(*) from imports")[0]["count"] < stored:
            time.sleep(0.03)
        time.sleep(seeded.uniform(0, 0.02))
        process.kill()
        if seeded.random() < 0.7:
            end_group(process.pid)
        process.wait()
        groups.append(process.pid)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(partition, "PART_BYTES", dump.stat().st_size // 20)
        run("import", dump, "--rejected", report, "--jobs", "1")
    for group in groups:
        end_group(group)
    assert query("select count(*) as stored, count(distinct tags->>'n') as points from factory_logs") == [
        {"stored": 1000, "points": 1000}
    ]
    assert numbers(report) == list(range(1000))


def end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)

"""An import stops before the disk of the embedded database is full, and continues when there is room."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from factory_logs.cli import database as cli_database
from factory_logs.cli.transfer import archive_import, record_import
from factory_logs.db.engine import Database
from factory_logs.influxdb.dump import partition
from factory_logs.ingest import disk_reserve
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.settings import Settings
from tests import forked
from tests.cli.conftest import Query, Run
from tests.cli.factories import LOG, lines

FULL, ROOM = {"data": 0, "wal": 0}, {"data": 2**62, "wal": 2**62}
LOGS = 95


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Make the test's PostgreSQL an embedded one for the import. Return a function that sets how often its disk has
    room from now on."""
    left = 0

    def free(_: Path) -> dict[str, int]:
        nonlocal left
        left -= 1
        return FULL if left < 0 else ROOM

    def set_left(times: int) -> None:
        nonlocal left
        left = times

    def reserve(database: Database, settings: Settings) -> DiskReserve:
        return DiskReserve(database, settings, tmp_path)

    monkeypatch.setattr(disk_reserve, "free_bytes", free)
    monkeypatch.setattr(cli_database, "disk_reserve", reserve)
    monkeypatch.setattr(record_import, "PART_RECORDS", 10)
    monkeypatch.setattr(partition, "PART_BYTES", 100)
    monkeypatch.setattr(archive_import, "BATCH_LOGS", 10)
    return set_left


def records(run: Run, query: Query, folder: Path) -> Path:
    file = folder / "logs.ndjson"
    file.write_text(lines(*(LOG | {"fields": {"n": n}} for n in range(LOGS))))
    return file


def dump(run: Run, query: Query, folder: Path) -> Path:
    file = folder / "logs.lp"
    file.write_text("".join(f"m,n={n} f={n}i {n}000000000\n" for n in range(LOGS)))
    return file


def archive(run: Run, query: Query, folder: Path) -> Path:
    stored = run("import", "-", "--format", "ndjson", stdin=lines(*([LOG | {"timestamp": "2001-01-01"}] * LOGS)))
    assert stored.exit_code == 0, stored.stderr
    run("retention", "--older-than", "1d", "--delete", "--archive", folder / "archive")
    assert query("select count(*) from factory_logs") == [{"count": 0}]
    return next((folder / "archive").iterdir())


@pytest.mark.parametrize(
    ("make", "options"),
    [(records, []), (dump, ["--jobs", "1"]), (dump, ["--jobs", "2"]), (archive, [])],
    ids=["records", "dump, one process", "dump, two processes", "archive"],
)
def test_it_stops_with_what_to_do_and_goes_on_later(
    run: Run, query: Query, tmp_path: Path, disk: Callable[[int], None],
    make: Callable[[Run, Query, Path], Path], options: list[str],
) -> None:  # fmt: skip
    disk(10**6)
    file = make(run, query, tmp_path)
    disk(3)
    stopped = run("import", file, *options)
    (stored,) = query("select count(*) from factory_logs")
    assert 0 < stored["count"] < LOGS
    assert (stopped.exit_code, stopped.stdout) == (1, "")
    assert "error: The disk of the database is nearly full" in stopped.stderr
    assert "Run the command again: it continues where it stopped" in stopped.stderr
    assert f" {stored['count']} " in stopped.stderr

    disk(0)
    assert run("import", file, *options).exit_code == 1
    assert query("select count(*) from factory_logs") == [stored]

    disk(10**6)
    again = run("import", file, *options)
    assert again.exit_code == 0, again.stderr
    assert f"Imported {LOGS - stored['count']} logs" in again.stdout
    assert query("select count(*), count(distinct factory_log_id) as ids from factory_logs") == [
        {"count": LOGS, "ids": LOGS}
    ]


@pytest.mark.slow
def test_the_embedded_database_keeps_its_reserve(short_tmp: Path, tmp_path: Path) -> None:
    file = tmp_path / "logs.ndjson"
    file.write_text(lines(LOG))

    def command(*arguments: str, reserve: int) -> subprocess.CompletedProcess[str]:
        environment = {"FACTORY_LOGS_DATA_DIR": str(short_tmp / "d"), "FACTORY_LOGS_DISK_RESERVE_BYTES": str(reserve)}
        return forked.run(*arguments, environment=os.environ | environment)

    assert command("migrate", reserve=0).returncode == 0
    refused = command("import", str(file), reserve=2**62)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"; 0 logs of {file} are stored" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert command("import", str(file), reserve=0).stdout == f"Imported 1 logs from {file}\n"

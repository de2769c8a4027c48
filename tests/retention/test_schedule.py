"""`serve` applies the retention policies once a day: one worker, at a set hour, not twice, and later if it was missed.

No test waits: the clock is given.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from sqlalchemy import text
from structlog.testing import capture_logs

from factory_logs import metrics
from factory_logs.db.engine import Database
from factory_logs.query import QueryLimits
from factory_logs.retention import removal
from factory_logs.retention import schedule as schedule_module
from factory_logs.retention.archive import open_archive
from factory_logs.retention.errors import BusyError, RetentionError
from factory_logs.retention.policies import Policy
from factory_logs.retention.schedule import RetentionSchedule, last_hour
from factory_logs.settings import Settings
from tests.api.conftest import worker

KOALA = """
[[policy]]
name = "koala"
older_than = "90d"
q = '{"filters": [{"name": "app_name", "op": "==", "val": "koala"}]}'
"""
TIGER = KOALA.replace("koala", "tiger")
NOON = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def tick(self, **duration: float) -> None:
        self.now += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "retention.toml"
    file.write_text(KOALA)
    return file


Start = Callable[..., RetentionSchedule]


@pytest.fixture
async def start(database: Database, migrated_url: str, file: Path, clock: Clock) -> AsyncIterator[Start]:
    """Return a function that starts the schedule of one more worker."""
    started: list[RetentionSchedule] = []

    def start(**settings: object) -> RetentionSchedule:
        given = Settings().model_copy(update={"database_url": SecretStr(migrated_url), **settings})
        started.append(RetentionSchedule(given, file, clock))
        return started[-1]

    yield start
    for schedule in started:
        await schedule._database.dispose()


async def store(database: Database, app: str, day: str, logs: int = 1) -> None:
    async with database.begin() as connection:
        values = {"app": app, "day": datetime.fromisoformat(day), "logs": logs}
        await connection.execute(
            text("insert into factory_logs (app_name, timestamp) select :app, :day from generate_series(1, :logs)"),
            values,
        )


async def stored(database: Database) -> list[str]:
    async with database.connect() as connection:
        rows = await connection.execute(text("select app_name from factory_logs order by factory_log_id"))
        return list(rows.scalars())


def counted(policy: str, outcome: str) -> float:
    return metrics.REGISTRY.get_sample_value(
        "factory_logs_retention_runs_total", {"policy": policy, "outcome": outcome}
    ) or 0.0  # fmt: skip


async def test_nothing_is_removed_before_the_next_set_hour_and_then_what_has_expired(
    start: Start, database: Database, clock: Clock
) -> None:
    await store(database, "koala", "2024-01-01")
    await store(database, "koala", "2024-04-01")
    await store(database, "tiger", "2024-01-01")
    schedule = start()
    await schedule.check()
    clock.tick(hours=14, minutes=59)
    await schedule.check()
    assert await stored(database) == ["koala", "koala", "tiger"]
    clock.tick(minutes=1)
    before = counted("koala", "done")
    with capture_logs() as lines:
        await schedule.check()
    assert await stored(database) == ["koala", "tiger"]
    assert counted("koala", "done") == before + 1
    labels = {"policy": "koala"}
    done = metrics.REGISTRY.get_sample_value("factory_logs_retention_done_timestamp_seconds", labels)
    assert done == datetime(2024, 5, 2, 3, 0, tzinfo=UTC).timestamp()
    (line,) = lines
    assert line.pop("seconds") >= 0
    assert line == {
        "event": "a retention policy ran", "log_level": "info", "policy": "koala", "removed": 1, "archives": [],
        "cutoff": "2024-02-02 03:00:00",
    }  # fmt: skip


async def test_it_runs_once_a_day_however_often_workers_start(start: Start, database: Database, clock: Clock) -> None:
    await start().check()
    clock.tick(hours=16)
    await start().check()
    await store(database, "koala", "2024-01-01")
    for _ in range(3):
        await start().check()
        clock.tick(hours=7)
    assert await stored(database) == ["koala"]
    clock.tick(hours=3)
    await start().check()
    assert await stored(database) == []


async def test_a_run_that_was_missed_is_caught_up_at_the_next_start(
    start: Start, database: Database, clock: Clock
) -> None:
    await store(database, "koala", "2024-01-01")
    await start().check()
    clock.tick(days=3, hours=5)
    schedule = start()
    await schedule.check()
    assert await stored(database) == []
    await store(database, "koala", "2024-01-01")
    clock.tick(hours=9)  # 02:00
    await schedule.check()
    assert await stored(database) == ["koala"]
    clock.tick(hours=1)
    await schedule.check()
    assert await stored(database) == []


async def test_of_several_workers_at_once_one_runs(start: Start, database: Database, clock: Clock) -> None:
    await store(database, "koala", "2024-01-01", logs=3)
    workers = [start() for _ in range(4)]
    await asyncio.gather(*(schedule.check() for schedule in workers))
    clock.tick(days=1)
    before = counted("koala", "done")
    await asyncio.gather(*(schedule.check() for schedule in workers))
    assert await stored(database) == []
    assert counted("koala", "done") == before + 1


async def test_while_another_process_removes_logs_a_worker_waits_for_its_next_check(
    start: Start, database: Database, clock: Clock
) -> None:
    await store(database, "koala", "2024-01-01")
    schedule = start()
    await schedule.check()
    clock.tick(days=1)
    async with removal.alone(database):
        await schedule.check()
        with pytest.raises(BusyError):
            async with removal.alone(database):
                pass
    assert await stored(database) == ["koala"]
    await schedule.check()
    assert await stored(database) == []


async def test_the_hour_is_that_of_the_time_zone(start: Start, database: Database, clock: Clock) -> None:
    await store(database, "koala", "2024-01-01")
    schedule = start(retention_time="22:30", retention_tz="Asia/Shanghai")  # 14:30 UTC
    await schedule.check()
    clock.tick(hours=2, minutes=29)
    await schedule.check()
    assert await stored(database) == ["koala"]
    clock.tick(minutes=1)
    await schedule.check()
    assert await stored(database) == []


async def test_a_new_policy_waits_for_the_next_set_hour_and_a_policy_that_is_taken_away_is_forgotten(
    start: Start, database: Database, clock: Clock, file: Path
) -> None:
    await store(database, "tiger", "2024-01-01")
    schedule = start()
    await schedule.check()
    file.write_text(KOALA + TIGER)
    await schedule.check()
    assert await stored(database) == ["tiger"]
    file.write_text(KOALA)
    await schedule.check()
    clock.tick(days=2)
    file.write_text(KOALA + TIGER)
    await schedule.check()
    assert await stored(database) == ["tiger"]
    clock.tick(days=1)
    await schedule.check()
    assert await stored(database) == []


async def test_two_hosts_with_a_file_each_apply_both(
    start: Start, database: Database, clock: Clock, file: Path, migrated_url: str
) -> None:
    await store(database, "tiger", "2024-01-01")
    await store(database, "koala", "2024-01-01")
    file.write_text(KOALA)
    other = file.with_name("other.toml")
    other.write_text(TIGER)
    given = Settings().model_copy(update={"database_url": SecretStr(migrated_url)})
    schedules = [start(), RetentionSchedule(given, other, clock)]
    try:
        for schedule in schedules * 2:
            await schedule.check()
        clock.tick(days=1)
        for schedule in schedules:
            await schedule.check()
        assert await stored(database) == []
    finally:
        await schedules[1]._database.dispose()


@contextmanager
def file_changed_by_each_run(schedule: RetentionSchedule, file: Path, text: str) -> Iterator[None]:
    """Replace the policies at the end of each run of a policy."""
    run_policy = schedule._run_policy

    async def run_and_change(connection: asyncpg.Connection, policy: Policy, hour: datetime) -> None:
        await run_policy(connection, policy, hour)
        file.write_text(text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "_run_policy", run_and_change)
        yield


async def test_a_policy_that_is_changed_while_another_one_runs_is_not_applied_as_it_was(
    start: Start, database: Database, clock: Clock, file: Path
) -> None:
    await store(database, "tiger", "2024-01-01")
    await store(database, "koala", "2024-01-01")
    file.write_text(KOALA + TIGER)
    schedule = start()
    await schedule.check()
    clock.tick(days=1)
    with file_changed_by_each_run(schedule, file, KOALA):
        await schedule.check()
    assert await stored(database) == ["tiger"]


async def test_a_file_that_is_wrong_while_a_policy_runs_skips_no_run(
    start: Start, database: Database, clock: Clock, file: Path
) -> None:
    await store(database, "tiger", "2024-01-01")
    await store(database, "koala", "2024-01-01")
    file.write_text(KOALA + TIGER)
    schedule = start()
    await schedule.check()
    clock.tick(days=1)
    with file_changed_by_each_run(schedule, file, KOALA + TIGER.replace("90d", "soon")):
        await schedule.check()
    assert await stored(database) == ["tiger"]
    file.write_text(KOALA + TIGER)
    await schedule.check()
    assert await stored(database) == []


async def test_a_run_while_the_clock_was_wrong_stops_no_later_run(
    start: Start, database: Database, clock: Clock
) -> None:
    schedule = start()
    await schedule.check()
    clock.tick(days=3650)
    await schedule.check()
    clock.tick(days=-3649)
    await store(database, "koala", "2024-01-01")
    await schedule.check()
    assert await stored(database) == []
    await store(database, "koala", "2024-01-01")
    await schedule.check()
    await start().check()
    assert await stored(database) == ["koala"]
    clock.tick(days=1)
    await start().check()
    assert await stored(database) == []


async def test_the_run_of_a_host_whose_clock_is_ahead_is_not_repeated(
    start: Start, database: Database, clock: Clock
) -> None:
    schedule = start()
    await schedule.check()
    clock.tick(hours=15)
    await schedule.check()
    clock.tick(seconds=-30)
    await store(database, "koala", "2024-01-01")
    await start().check()
    assert await stored(database) == ["koala"]


async def test_a_file_that_becomes_wrong_lets_nothing_be_removed_and_is_reported_once(
    start: Start, database: Database, clock: Clock, file: Path
) -> None:
    await store(database, "koala", "2024-01-01")
    schedule = start()
    await schedule.check()
    file.write_text(KOALA.replace("90d", "soon"))
    clock.tick(days=1)
    with capture_logs() as lines:
        await schedule.check()
        await schedule.check()
    (line,) = lines
    assert line["log_level"] == "error"
    assert "policy 'koala': older_than: 'soon' is not a duration" in line["reason"]
    assert await stored(database) == ["koala"]
    file.write_text(KOALA)
    await schedule.check()
    assert await stored(database) == []


async def test_logs_are_archived_before_they_go(
    start: Start, database: Database, clock: Clock, file: Path, tmp_path: Path
) -> None:
    file.write_text(KOALA + 'archive = "archives"\n' + TIGER + 'archive = "archives"\n')
    await store(database, "koala", "2024-01-01", logs=3)
    schedule = start()
    await schedule.check()
    clock.tick(days=1)
    with capture_logs() as lines:
        await schedule.check()
    assert await stored(database) == []
    (folder,) = (tmp_path / "archives").iterdir()  # the other policy had nothing to archive
    assert [line["archives"] for line in lines] == [[str(folder)], []]
    archive = open_archive(folder)
    assert (archive.manifest.logs, archive.manifest.q) == (3, KOALA.split("'")[1])
    assert len(list(archive.lines())) == 3


async def test_a_policy_that_fails_removes_nothing_stops_no_other_and_is_tried_again_later(
    start: Start, database: Database, clock: Clock, file: Path, tmp_path: Path
) -> None:
    file.write_text(KOALA + 'archive = "file/archives"\n' + TIGER)
    (tmp_path / "file").write_text("")
    await store(database, "koala", "2024-01-01")
    await store(database, "tiger", "2024-01-01")
    workers = start(), start()
    await workers[0].check()
    clock.tick(days=1)
    before = counted("koala", "failed"), counted("koala", "done")
    with capture_logs() as lines:
        for schedule in workers:
            await schedule.check()
    assert [line["event"] for line in lines] == ["a retention policy failed", "a retention policy ran"]
    assert await stored(database) == ["koala"]
    assert (counted("koala", "failed"), counted("koala", "done")) == (before[0] + 1, before[1])
    (tmp_path / "file").unlink()
    clock.tick(minutes=9)
    await workers[1].check()
    assert await stored(database) == ["koala"]
    clock.tick(minutes=1)
    await workers[1].check()
    assert await stored(database) == []


async def test_an_archive_that_is_not_what_was_written_lets_nothing_be_removed_and_is_not_left_behind(
    start: Start, database: Database, clock: Clock, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(folder: Path) -> removal.Archive:
        part = folder / "part-00001.ndjson.zst"
        content = part.read_bytes()
        part.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        return open_archive(folder)

    monkeypatch.setattr(removal, "open_archive", damage)
    file.write_text(KOALA + 'archive = "archives"\n')
    await store(database, "koala", "2024-01-01")
    schedule = start()
    await schedule.check()
    clock.tick(days=1)
    with capture_logs() as lines:
        await schedule.check()
    assert "is damaged" in lines[0]["reason"]
    assert await stored(database) == ["koala"]
    assert list((tmp_path / "archives").iterdir()) == []


@pytest.mark.parametrize("at", ["Archiving", "Checking"])
async def test_a_run_that_is_stopped_before_the_deletion_leaves_no_archive_and_removes_nothing(
    database: Database, tmp_path: Path, at: str
) -> None:
    await store(database, "koala", "2024-01-01", logs=1000)
    logs = removal.expired(datetime(2024, 2, 1), None, QueryLimits.from_settings(Settings()))

    def stop(step: str) -> object:
        if step == at:
            raise asyncio.CancelledError
        return removal.quiet(step)

    async with removal.alone(database) as connection:
        with pytest.raises(asyncio.CancelledError):
            await removal.remove(database, connection, logs, tmp_path / "archives", steps=stop)  # type: ignore[arg-type]
    assert len(await stored(database)) == 1000
    assert list(tmp_path.glob("archives/*")) == []


async def test_a_run_that_is_stopped_in_its_deletion_goes_on_after_the_next_start(
    start: Start, database: Database, clock: Clock, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "BATCH_LOGS", 2)
    remove_logs, batches = removal.remove_logs, iter(range(10))

    async def stopping(*arguments: object) -> object:
        if next(batches) == 1:
            raise asyncio.CancelledError
        return await remove_logs(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(removal, "remove_logs", stopping)
    file.write_text(KOALA + 'archive = "archives"\n')
    await store(database, "koala", "2024-01-01", logs=5)
    schedule = start()
    await schedule.check()
    clock.tick(days=1)
    with pytest.raises(asyncio.CancelledError):
        await schedule.check()
    assert len(await stored(database)) == 3
    clock.tick(minutes=10)
    await start().check()
    assert await stored(database) == []
    folders = sorted((tmp_path / "archives").iterdir())
    assert [open_archive(folder).manifest.logs for folder in folders] == [5, 3]


async def test_a_write_error_names_the_archive(database: Database, tmp_path: Path) -> None:
    await store(database, "koala", "2024-01-01")
    (tmp_path / "archives").write_text("")
    logs = removal.expired(datetime(2024, 2, 1), None, QueryLimits.from_settings(Settings()))
    async with removal.alone(database) as connection:
        with pytest.raises(RetentionError, match=r"archives/logs-.*: Not a directory"):
            await removal.remove(database, connection, logs, tmp_path / "archives")


ZONES = st.sampled_from(["UTC", "Asia/Shanghai", "Europe/Berlin", "America/New_York", "Pacific/Apia", "Asia/Kolkata"])


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC)),
    st.times().map(lambda time: f"{time:%H:%M}"),
    ZONES,
)
def test_the_last_hour_is_at_most_a_day_ago_and_the_next_one_is_later(now: datetime, at: str, name: str) -> None:
    zone = ZoneInfo(name)
    last = last_hour(now, at, zone).replace(tzinfo=UTC)
    assert last <= now
    # A day has 23 to 25 hours; Samoa left one out.
    assert now - last < timedelta(hours=49 if name == "Pacific/Apia" else 26)
    assert last_hour(last, at, zone) == last.replace(tzinfo=None)
    before = last_hour(last - timedelta(microseconds=1), at, zone).replace(tzinfo=UTC)
    assert last - before >= timedelta(hours=22)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2024-03-31T00:59", "2024-03-30T01:30"),
        ("2024-03-31T01:30", "2024-03-31T01:30"),  # 02:30 is skipped: 01:30 UTC, by the offset before the change
        ("2024-04-01T00:30", "2024-04-01T00:30"),
        ("2024-10-27T00:30", "2024-10-27T00:30"),  # 02:30 comes twice: the first one
        ("2024-10-27T01:30", "2024-10-27T00:30"),
    ],
)
def test_a_change_to_or_from_summer_time_gives_one_run_a_day(now: str, expected: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert last_hour(moment, "02:30", ZoneInfo("Europe/Berlin")) == datetime.fromisoformat(expected)


async def test_without_its_table_the_schedule_waits_with_a_warning(
    start: Start, database: Database, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedule_module, "CHECK_SECONDS", 0.01)
    await store(database, "koala", "2024-01-01")
    async with database.begin() as connection:
        await connection.execute(text("insert into retention_policies values ('koala', '2024-01-01 03:00')"))
        await connection.execute(text("alter table retention_policies rename to elsewhere"))
    with capture_logs() as lines:
        running = asyncio.create_task(start().run())
        try:
            async with asyncio.timeout(60):
                while not lines:
                    await asyncio.sleep(0.01)
                async with database.begin() as connection:
                    await connection.execute(text("alter table elsewhere rename to retention_policies"))
                while await stored(database):
                    await asyncio.sleep(0.01)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            async with database.begin() as connection:
                await connection.execute(text("alter table if exists elsewhere rename to retention_policies"))
    assert lines[0]["event"] == "retention waits for the database"


async def test_a_worker_of_the_service_applies_the_policies(
    database: Database, migrated_url: str, file: Path, tmp_path: Path
) -> None:
    """The last scheduled hour is set to a time before the policy was seen, as if the service had not run then."""
    await store(database, "koala", "2024-01-01")
    async with database.begin() as connection:
        await connection.execute(text("insert into retention_policies values ('koala', '2024-01-01 03:00')"))
    async with worker(migrated_url, retention_policies=file), asyncio.timeout(60):
        while await stored(database):
            await asyncio.sleep(0.05)

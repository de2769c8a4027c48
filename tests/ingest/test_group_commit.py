"""Group commit: which logs share a commit, which are refused at once, and what happens to waiting logs if a commit
fails."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from types import SimpleNamespace

import asyncpg
import pytest

from factory_logs.db import idempotency_keys
from factory_logs.db.connecting import APPLICATION_NAME
from factory_logs.db.engine import Database
from factory_logs.db.idempotency_keys import FirstResponse
from factory_logs.db.log_inserts import Outcome, Stored
from factory_logs.db.users import UserRepository
from factory_logs.errors import BadRequestError, DatabaseUnavailableError, OverloadedError
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.ingest.group_commit import GroupCommit, Submission
from factory_logs.ingest.idempotency import WriteKey
from factory_logs.ingest.validation import NewLog, parse_log
from factory_logs.permissions import Level
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.settings import Settings
from tests.locking import locked

WAITING = f"""
    SELECT pid FROM pg_stat_activity WHERE application_name = '{APPLICATION_NAME}' AND wait_event_type = 'Lock'
"""


def a_log(app_name: str = "tiger", repair_id: int | None = None, text: str = "") -> NewLog:
    repair = "null" if repair_id is None else repair_id
    record = f'{{"app_name": "{app_name}", "timestamp": "2024-01-31", "repair_id": {repair}, "tags": "{text}"}}'
    return parse_log(record.encode(), RecordLimits(256 * 1024, 32))


async def a_key(database: Database) -> WriteKey:
    """Create a user, and return a key of that user."""
    user = await UserRepository(database).create("ann", "Ann", None, Level.SYSTEM)
    return WriteKey(user.user_id, "retry", b"x" * 32)


@pytest.fixture
def group_commit(database: Database, settings: Settings) -> Callable[..., GroupCommit]:
    """Create a group commit with these settings, without starting it."""

    def make(**changes: object) -> GroupCommit:
        changed = settings.model_copy(update=changes)
        return GroupCommit(database, changed, DiskReserve(database, changed, None))

    return make


@asynccontextmanager
async def running(group_commit: GroupCommit) -> AsyncIterator[GroupCommit]:
    group_commit.start()
    try:
        yield group_commit
    finally:
        await group_commit.drain()


@pytest.fixture
async def database_of(migrated_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated_url)
    yield connection
    await connection.close()


async def commits(connection: asyncpg.Connection) -> list[list[str]]:
    """Return the app names of each transaction's logs, in order of their ids."""
    rows = await connection.fetch(
        "SELECT array_agg(app_name ORDER BY factory_log_id) AS apps FROM factory_logs"
        " GROUP BY xmin::text ORDER BY min(factory_log_id)"
    )
    return [row["apps"] for row in rows]


async def writer_waits(watcher: asyncpg.Connection) -> int:
    """Return the backend of a writer once it waits for the locked table."""
    async with asyncio.timeout(60):
        while True:
            pid: int | None = await watcher.fetchval(WAITING)
            if pid is not None:
                return pid
            await asyncio.sleep(0.01)


async def test_waiting_logs_share_a_commit_in_their_order(
    group_commit: Callable[..., GroupCommit], database_of: asyncpg.Connection
) -> None:
    waiting = group_commit()
    results = [waiting.store(a_log(f"app-{number}"), "ann") for number in range(50)]
    async with running(waiting):
        stored = await asyncio.gather(*results)
    assert [each.factory_log_id for each in stored if isinstance(each, Stored)] == list(range(1, 51))
    assert await commits(database_of) == [[f"app-{number}" for number in range(50)]]


async def test_the_next_batch_is_collected_during_a_commit(
    group_commit: Callable[..., GroupCommit], database_of: asyncpg.Connection, migrated_url: str
) -> None:
    async with running(group_commit()) as running_one:
        async with locked(migrated_url) as watcher:
            results = [running_one.store(a_log("first"), "ann")]
            await writer_waits(watcher)
            results += [running_one.store(a_log("second"), "ann"), running_one.store(a_log("third"), "ann")]
            assert not any(result.done() for result in results)
        await asyncio.gather(*results)
    assert await commits(database_of) == [["first"], ["second", "third"]]


@pytest.mark.parametrize(
    ("bound", "expected"),
    [({"max_batch_logs": 2}, [2, 2, 1]), ({"max_batch_logs": 5}, [5]), ({"max_batch_bytes": 2_500}, [3, 2])],
)
async def test_a_commit_is_limited_in_logs_and_bytes(
    group_commit: Callable[..., GroupCommit],
    database_of: asyncpg.Connection,
    bound: dict[str, int],
    expected: list[int],
) -> None:
    """Each log counts as about 1,000 bytes; a commit takes logs until it exceeds its limit."""
    waiting = group_commit(**bound)
    results = [waiting.store(a_log(text="x" * 800), "ann") for _ in range(5)]
    async with running(waiting):
        await asyncio.gather(*results)
    assert [len(apps) for apps in await commits(database_of)] == expected


async def test_a_log_with_an_unknown_repair_fails_alone(group_commit: Callable[..., GroupCommit]) -> None:
    waiting = group_commit()
    good, bad, late = (waiting.store(a_log(repair_id=repair_id), "ann") for repair_id in (None, 99, None))
    async with running(waiting):
        assert isinstance(await good, Stored)
        assert isinstance(await late, Stored)
        with pytest.raises(BadRequestError) as caught:
            await bad
    assert [error.as_json() for error in caught.value.errors] == [
        {"field": "repair_id", "message": "there is no repair 99"}
    ]


async def test_of_two_writes_with_one_key_in_one_commit_one_is_stored(
    group_commit: Callable[..., GroupCommit], database: Database, database_of: asyncpg.Connection
) -> None:
    key = await a_key(database)
    waiting = group_commit()
    results = [waiting.store(a_log(), "ann", key) for _ in range(2)]
    async with running(waiting):
        first, second = await asyncio.gather(*results)
    assert isinstance(first, Stored)
    assert isinstance(second, FirstResponse)
    assert second.fingerprint == key.fingerprint
    assert await database_of.fetchval("SELECT count(*) FROM factory_logs") == 1


async def test_groups_of_two_workers_with_the_same_keys_in_opposite_order_do_not_deadlock(
    group_commit: Callable[..., GroupCommit],
    database: Database,
    database_of: asyncpg.Connection,
    migrated_url: str,
) -> None:
    """A third transaction holds the middle key until both groups wait."""
    user_id = (await a_key(database)).user_id
    keys = [WriteKey(user_id, name, b"x" * 32) for name in ("a", "m", "z")]
    groups = group_commit(), group_commit()
    results = [
        [group.store(a_log(), "ann", key) for key in order]
        for group, order in zip(groups, (keys, keys[::-1]), strict=True)
    ]
    holder = await asyncpg.connect(migrated_url)
    try:
        async with asyncio.timeout(60):
            transaction = holder.transaction()
            await transaction.start()
            assert await idempotency_keys.claim(holder, keys[1])
            async with running(groups[0]), running(groups[1]):
                while len(await database_of.fetch(WAITING)) < 2:
                    await asyncio.sleep(0.01)
                await transaction.rollback()
                outcomes = [await result for group in results for result in group]
    finally:
        await holder.close()
    assert [type(outcome) for outcome in outcomes].count(Stored) == 3
    assert [type(outcome) for outcome in outcomes].count(FirstResponse) == 3
    assert await database_of.fetchval("SELECT count(*) FROM factory_logs") == 3


@pytest.mark.parametrize(
    ("bound", "fitting"),
    [({"max_queued_logs": 3}, 3), ({"max_queued_bytes": 3_200}, 3), ({"max_queued_bytes": 900}, 0)],
)
async def test_a_full_queue_refuses_the_next_log_at_once(
    group_commit: Callable[..., GroupCommit], bound: dict[str, int], fitting: int
) -> None:
    waiting = group_commit(**bound)
    results = [waiting.store(a_log(text="x" * 800), "ann") for _ in range(fitting)]
    with pytest.raises(OverloadedError, match="cannot take more"):
        waiting.store(a_log(text="x" * 800), "ann")
    logs, held = waiting.queued
    assert (logs, held >= 800 * fitting) == (fitting, True)
    async with running(waiting):
        await asyncio.gather(*results)
        assert waiting.queued == (0, 0)
        if fitting:
            await waiting.store(a_log(text="x" * 800), "ann")  # there is room again


async def test_draining_stores_the_waiting_logs_and_refuses_new_ones(
    group_commit: Callable[..., GroupCommit], database_of: asyncpg.Connection
) -> None:
    stopping = group_commit()
    results = [stopping.store(a_log(), "ann") for _ in range(10)]
    stopping.start()
    await stopping.drain()
    assert all(isinstance(result.result(), Stored) for result in results)
    assert await database_of.fetchval("SELECT count(*) FROM factory_logs") == 10
    with pytest.raises(OverloadedError):
        stopping.store(a_log(), "ann")


async def test_logs_that_are_not_stored_when_draining_ends_are_refused(
    group_commit: Callable[..., GroupCommit], migrated_url: str
) -> None:
    stopping = group_commit(drain_seconds=0.1, max_batch_logs=1)
    results = [stopping.store(a_log(), "ann") for _ in range(2)]
    async with locked(migrated_url) as watcher:
        stopping.start()
        await writer_waits(watcher)
        await stopping.drain()
    for result in results:
        with pytest.raises(OverloadedError, match="stopping"):
            await result


async def test_a_log_whose_request_is_cancelled_before_it_is_sent_is_not_stored(
    group_commit: Callable[..., GroupCommit], database_of: asyncpg.Connection
) -> None:
    """Its client has got a 503, and sends it again."""
    waiting = group_commit(max_batch_logs=2)
    results = [waiting.store(a_log(name), "ann") for name in ("gone", "there", "gone", "gone", "last")]
    for index in (0, 2, 3):
        results[index].cancel()
    async with running(waiting):
        assert isinstance(await results[1], Stored)
        assert isinstance(await results[4], Stored)
    assert await commits(database_of) == [["there"], ["last"]]


async def test_a_log_whose_request_is_cancelled_while_the_connection_is_opened_is_not_stored(
    group_commit: Callable[..., GroupCommit], database_of: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = group_commit()
    gone, there = waiting.store(a_log("gone"), "ann"), waiting.store(a_log("there"), "ann")
    connect_raw = waiting._database.connect_raw

    async def connect() -> asyncpg.Connection:
        gone.cancel()
        return await connect_raw()

    monkeypatch.setattr(waiting._database, "connect_raw", connect)
    async with running(waiting):
        assert isinstance(await there, Stored)
    assert await commits(database_of) == [["there"]]


async def test_a_log_whose_request_is_cancelled_while_refused_logs_are_sent_apart_is_not_stored(
    group_commit: Callable[..., GroupCommit], database_of: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = group_commit()
    refused, gone, there = (waiting.store(a_log(name), "ann") for name in ("refused", "gone", "there"))
    send = waiting._send

    async def cancel_and_send(connection: asyncpg.Connection, batch: list[Submission]) -> Sequence[Outcome]:
        if len(batch) == 1:  # the first half
            gone.cancel()
        return await send(connection, batch)

    monkeypatch.setattr(waiting, "_send", cancel_and_send)
    await database_of.execute("ALTER TABLE factory_logs ADD CONSTRAINT no_refused CHECK (app_name <> 'refused')")
    try:
        async with running(waiting):
            assert isinstance(await there, Stored)
        assert isinstance(refused.exception(), BadRequestError)
    finally:
        await database_of.execute("ALTER TABLE factory_logs DROP CONSTRAINT no_refused")
    assert await commits(database_of) == [["there"]]


async def test_the_halves_of_a_refused_group_are_refused_when_draining_ends(
    group_commit: Callable[..., GroupCommit], database_of: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = group_commit(drain_seconds=0.1)
    results = [stopping.store(a_log("refused"), "ann") for _ in range(2)]
    send, first_half_is_sent = stopping._send, asyncio.Event()

    async def send_once(connection: asyncpg.Connection, batch: list[Submission]) -> Sequence[Outcome]:
        if len(batch) == 2:
            return await send(connection, batch)
        first_half_is_sent.set()
        await asyncio.Event().wait()  # as if PostgreSQL did not respond
        raise AssertionError

    monkeypatch.setattr(stopping, "_send", send_once)
    await database_of.execute("ALTER TABLE factory_logs ADD CONSTRAINT no_refused CHECK (app_name <> 'refused')")
    try:
        async with asyncio.timeout(60):
            stopping.start()
            await first_half_is_sent.wait()
            await stopping.drain()
            for result in results:
                with pytest.raises(OverloadedError, match="stopping"):
                    await result
    finally:
        await database_of.execute("ALTER TABLE factory_logs DROP CONSTRAINT no_refused")


async def test_refused_logs_that_are_sent_apart_do_not_look_like_a_stalled_database(
    group_commit: Callable[..., GroupCommit], database_of: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement takes 10 s of a clock of the test, and a new log arrives during each."""
    waiting = group_commit(stall_seconds=15.0)
    now, later = 0.0, []
    send = waiting._send

    async def slow(connection: asyncpg.Connection, batch: list[Submission]) -> Sequence[Outcome]:
        nonlocal now
        now += 10
        if batch[0].row.log.app_name == "refused":
            later.append(waiting.store(a_log(), "ann"))
        return await send(connection, batch)

    monkeypatch.setattr(waiting, "_send", slow)
    clock = SimpleNamespace(monotonic=lambda: now, perf_counter=time.perf_counter)
    for module in ("factory_logs.db.coalescer", "factory_logs.ingest.group_commit"):
        monkeypatch.setattr(f"{module}.time", clock)  # not time.monotonic itself, which the event loop uses
    await database_of.execute("ALTER TABLE factory_logs ADD CONSTRAINT no_refused CHECK (app_name <> 'refused')")
    try:
        refused = [waiting.store(a_log("refused"), "ann") for _ in range(4)]
        async with running(waiting):
            for result in refused:
                with pytest.raises(BadRequestError, match="refuses a record"):
                    await result
            assert all(isinstance(result, Stored) for result in await asyncio.gather(*later))
    finally:
        await database_of.execute("ALTER TABLE factory_logs DROP CONSTRAINT no_refused")


async def test_logs_are_not_sent_again_if_a_used_key_cannot_be_looked_up_after_their_commit(
    group_commit: Callable[..., GroupCommit], database: Database, database_of: asyncpg.Connection
) -> None:
    key = await a_key(database)
    waiting = group_commit()
    results = [waiting.store(a_log(), "ann"), waiting.store(a_log(), "ann", key), waiting.store(a_log(), "ann", key)]
    await database_of.execute("ALTER TABLE idempotency_keys RENAME COLUMN answer TO renamed")
    try:
        async with running(waiting):
            for result in results:
                with pytest.raises(DatabaseUnavailableError):
                    await result
    finally:
        await database_of.execute("ALTER TABLE idempotency_keys RENAME COLUMN renamed TO answer")
    assert await database_of.fetchval("SELECT count(*) FROM factory_logs") == 2


async def test_a_commit_that_takes_too_long_fails_its_logs_and_the_next_one_works(
    group_commit: Callable[..., GroupCommit], migrated_url: str
) -> None:
    async with running(group_commit(commit_timeout_seconds=0.5)) as running_one:
        async with locked(migrated_url) as watcher:
            sent = running_one.store(a_log(), "ann")
            await writer_waits(watcher)
            behind = running_one.store(a_log(), "ann")
            for result in (sent, behind):
                with pytest.raises(DatabaseUnavailableError):
                    await result
            assert running_one.queued == (0, 0)
        assert isinstance(await running_one.store(a_log(), "ann"), Stored)


async def test_a_lost_connection_fails_its_batch_and_the_next_one_has_another(
    group_commit: Callable[..., GroupCommit], migrated_url: str
) -> None:
    async with running(group_commit()) as running_one:
        async with locked(migrated_url) as watcher:
            sent = running_one.store(a_log(), "ann")
            await watcher.execute("SELECT pg_terminate_backend($1::int)", await writer_waits(watcher))
            with pytest.raises(DatabaseUnavailableError):
                await sent
        assert isinstance(await running_one.store(a_log(), "ann"), Stored)


async def test_while_every_writer_waits_too_long_new_logs_are_refused_at_once(
    group_commit: Callable[..., GroupCommit], migrated_url: str
) -> None:
    async with running(group_commit(stall_seconds=0.0)) as running_one:
        async with locked(migrated_url) as watcher:
            sent = running_one.store(a_log(), "ann")
            await writer_waits(watcher)
            with pytest.raises(OverloadedError):
                running_one.store(a_log(), "ann")
        assert isinstance(await sent, Stored)
        assert isinstance(await running_one.store(a_log(), "ann"), Stored)


async def test_as_many_batches_are_written_at_once_as_there_are_writers(
    group_commit: Callable[..., GroupCommit], migrated_url: str
) -> None:
    async with running(group_commit(writers=2)) as running_one, asyncio.timeout(60):
        async with locked(migrated_url) as watcher:
            results = [running_one.store(a_log(), "ann")]
            await writer_waits(watcher)
            results.append(running_one.store(a_log(), "ann"))
            while len(await watcher.fetch(WAITING)) < 2:
                await asyncio.sleep(0.01)
        await asyncio.gather(*results)

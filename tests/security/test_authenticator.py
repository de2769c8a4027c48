import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import event, text
from structlog.testing import capture_logs

from factory_logs.db.engine import Database, Pool
from factory_logs.db.errors import UNREACHABLE
from factory_logs.db.tokens import TokenRepository
from factory_logs.db.users import UserRecord, UserRepository
from factory_logs.errors import DatabaseUnavailableError, UnauthenticatedError
from factory_logs.permissions import CurrentUser, Level
from factory_logs.security import authenticator as module
from factory_logs.security.authenticator import Authenticator
from factory_logs.security.tokens import hash_token, issue_sliding_token, issue_token, new_token
from factory_logs.settings import Settings

IDLE = 3 * 3600


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authenticator(database: Database, settings: Settings, clock: Clock) -> Authenticator:
    known = settings.model_copy(update={"token_cache_seconds": 3.0, "token_touch_seconds": 60.0})
    return Authenticator(database, known, clock=clock)


@pytest.fixture
async def user(database: Database) -> UserRecord:
    return await UserRepository(database).create("ann", "Ann", None, "TECHNICAL")


@pytest.fixture
async def token(database: Database, user: UserRecord) -> str:
    return (await issue_sliding_token(database, user.user_id, idle_seconds=IDLE)).token


@pytest.fixture
def header(token: str) -> str:
    return f"Token token={token}"


@contextmanager
def statements(database: Database) -> Iterator[list[str]]:
    """Collect the SQL that runs inside the block."""
    seen: list[str] = []

    def record(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(statement)

    event.listen(database.engines[Pool.AUTHENTICATION].sync_engine, "before_cursor_execute", record)
    try:
        yield seen
    finally:
        event.remove(database.engines[Pool.AUTHENTICATION].sync_engine, "before_cursor_execute", record)


async def test_a_valid_token_returns_user_and_level(
    authenticator: Authenticator, header: str, token: str, user: UserRecord
) -> None:
    expected = CurrentUser(user.user_id, "ann", Level.TECHNICAL)
    assert await authenticator.authenticate(header) == expected
    assert await authenticator.authenticate_token(token) == expected


@pytest.mark.parametrize("authorization", [None, "", "Bearer x", "Token ", "Token token=unknown"])
async def test_no_token_or_a_bad_one_is_refused(authenticator: Authenticator, authorization: str | None) -> None:
    assert authenticator.cached(authorization) is None
    with pytest.raises(UnauthenticatedError):
        await authenticator.authenticate(authorization)


async def test_a_known_header_needs_no_look_up_and_no_await(
    authenticator: Authenticator, database: Database, header: str
) -> None:
    assert authenticator.cached(header) is None
    user = await authenticator.authenticate(header)
    with statements(database) as seen:
        assert authenticator.cached(header) is user
        assert await authenticator.authenticate(header) is user
    assert seen == []


async def test_another_spelling_of_a_known_token_needs_no_look_up(
    authenticator: Authenticator, database: Database, header: str, token: str
) -> None:
    await authenticator.authenticate(header)
    with statements(database) as seen:
        await authenticator.authenticate(f'token "{token}"')
    assert seen == []


async def test_a_revocation_takes_effect_when_the_cache_entry_ends(
    authenticator: Authenticator, database: Database, header: str, token: str, clock: Clock
) -> None:
    await authenticator.authenticate(header)
    await TokenRepository(database).revoke(hash_token(token))
    clock.now += 2.9
    assert await authenticator.authenticate(header)
    clock.now += 0.1
    assert authenticator.cached(header) is None
    with pytest.raises(UnauthenticatedError):
        await authenticator.authenticate(header)


async def test_using_a_token_does_not_prolong_its_cache_entry(
    authenticator: Authenticator, header: str, clock: Clock
) -> None:
    await authenticator.authenticate(header)
    for _ in range(3):
        clock.now += 1
        authenticator.cached(header)
    assert authenticator.cached(header) is None


async def test_the_cache_time_begins_before_the_query(
    authenticator: Authenticator, header: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = authenticator._tokens.look_up

    async def slowly(token_hash: bytes) -> Any:
        found = await look_up(token_hash)
        clock.now += 2
        return found

    monkeypatch.setattr(authenticator._tokens, "look_up", slowly)
    await authenticator.authenticate(header)
    clock.now += 1
    assert authenticator.cached(header) is None


async def test_an_absolute_end_takes_effect_within_the_cache_time(
    authenticator: Authenticator, database: Database, user: UserRecord, clock: Clock
) -> None:
    end = datetime.now(UTC).replace(tzinfo=None) + timedelta(seconds=2)
    header = f"Token {await issue_token(database, user.user_id, expires_at=end)}"
    await authenticator.authenticate(header)
    clock.now += 2
    assert authenticator.cached(header) is None


async def test_an_unknown_token_is_looked_up_once_per_cache_time(
    authenticator: Authenticator, database: Database, clock: Clock
) -> None:
    header = f"Token {new_token()}"
    with statements(database) as seen:
        for _ in range(3):
            with pytest.raises(UnauthenticatedError):
                await authenticator.authenticate(header)
        assert len(seen) == 1
        clock.now += 3
        with pytest.raises(UnauthenticatedError):
            await authenticator.authenticate(header)
    assert len(seen) == 2


async def test_misses_of_one_token_at_once_do_one_look_up(
    authenticator: Authenticator, database: Database, header: str, token: str
) -> None:
    headers = [header, f"Token {token}"] * 20
    with statements(database) as seen:
        users = await asyncio.gather(*map(authenticator.authenticate, headers))
    assert len(seen) == 1
    assert len(set(users)) == 1


async def test_a_cancelled_caller_does_not_affect_others(authenticator: Authenticator, header: str) -> None:
    first = asyncio.create_task(authenticator.authenticate(header))
    second = asyncio.create_task(authenticator.authenticate(header))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).username == "ann"
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_unreachable_database_is_not_a_refusal_and_is_not_cached(
    authenticator: Authenticator, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(TokenRepository, "look_up", away)
        with pytest.raises(DatabaseUnavailableError):
            await authenticator.authenticate(header)
    assert await authenticator.authenticate(header)


async def test_the_caches_are_limited_and_bad_tokens_evict_no_good_one(
    database: Database, settings: Settings, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 5)
    authenticator = Authenticator(database, settings)
    await authenticator.authenticate(header)
    for _ in range(10):
        with suppress(UnauthenticatedError):
            await authenticator.authenticate_token(new_token())
    assert authenticator.cached(header)
    assert len(authenticator._refused_until) == 5


async def test_the_oldest_good_token_is_evicted_first(
    database: Database, settings: Settings, user: UserRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_ENTRIES", 2)
    authenticator = Authenticator(database, settings)
    headers = [f"Token {await issue_token(database, user.user_id, expires_at=None)}" for _ in range(3)]
    for header in headers:
        await authenticator.authenticate(header)
    assert [authenticator.cached(header) is not None for header in headers] == [False, True, True]


async def test_an_evicted_token_is_not_accepted_after_its_revocation(
    database: Database, settings: Settings, user: UserRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its header is still in the cache, because InfluxDB's clients send the other token as a password."""
    monkeypatch.setattr(module, "MAX_ENTRIES", 1)
    authenticator = Authenticator(database, settings)
    token, other = [await issue_token(database, user.user_id, expires_at=None) for _ in range(2)]
    await authenticator.authenticate(f"Token {token}")
    await authenticator.authenticate_token(other)
    await authenticator.revoke(f"Bearer {token}")
    with pytest.raises(UnauthenticatedError):
        await authenticator.authenticate(f"Token {token}")


async def test_an_overlong_header_is_read_but_not_cached(authenticator: Authenticator, token: str) -> None:
    header = "Token " + " " * 1000 + token
    assert await authenticator.authenticate(header)
    assert authenticator.cached(header) is None


async def test_a_token_issued_by_this_worker_is_cached_at_once(
    authenticator: Authenticator, database: Database
) -> None:
    ann = CurrentUser(1, "ann", Level.SYSTEM)
    token = new_token()
    authenticator.remember(token, ann, idle_seconds=IDLE)
    with statements(database) as seen:
        assert await authenticator.authenticate(f"Token {token}") == ann
    assert seen == []


async def seconds_since_use(database: Database, token: str) -> float | None:
    found = await TokenRepository(database).look_up(hash_token(token))
    assert found is not None
    return found.seconds_since_use


async def test_authenticating_writes_nothing(
    authenticator: Authenticator, database: Database, header: str, token: str
) -> None:
    await authenticator.authenticate(header)
    authenticator.cached(header)
    assert await seconds_since_use(database, token) is None


async def test_all_uses_are_written_in_one_statement(
    authenticator: Authenticator, database: Database, user: UserRecord
) -> None:
    issued = [await issue_sliding_token(database, user.user_id, idle_seconds=IDLE) for _ in range(5)]
    for each in issued:
        await authenticator.authenticate_token(each.token)
    with statements(database) as seen:
        assert await authenticator.write_uses() == 5
        assert await authenticator.write_uses() == 0
    assert len(seen) == 1
    for each in issued:
        assert await seconds_since_use(database, each.token) is not None


async def test_a_busy_token_is_written_once_per_interval(
    authenticator: Authenticator, header: str, clock: Clock
) -> None:
    written = []
    for _ in range(121):
        await authenticator.authenticate(header)
        written.append(await authenticator.write_uses())
        clock.now += 1
    assert [second for second, count in enumerate(written) if count] == [0, 60, 120]


async def test_the_last_use_is_written_when_due_without_further_requests(
    authenticator: Authenticator, header: str, clock: Clock
) -> None:
    await authenticator.authenticate(header)
    await authenticator.write_uses()
    clock.now += 2
    authenticator.cached(header)
    clock.now += 57
    assert await authenticator.write_uses() == 0
    clock.now += 1
    assert await authenticator.write_uses() == 1


async def test_a_use_is_written_with_its_own_time(
    authenticator: Authenticator, database: Database, header: str, token: str, clock: Clock
) -> None:
    await authenticator.authenticate(header)
    clock.now += 58
    await authenticator.write_uses()
    assert 58 <= (await seconds_since_use(database, token) or 0) < 600


async def test_a_use_waits_if_another_worker_has_written_one_recently(
    authenticator: Authenticator, database: Database, header: str, token: str
) -> None:
    await TokenRepository(database).touch({hash_token(token): 10.0})
    await authenticator.authenticate(header)
    assert await authenticator.write_uses() == 0
    assert await authenticator.write_uses(everything=True) == 1


async def test_a_token_with_a_short_life_is_written_more_often(
    authenticator: Authenticator, database: Database, user: UserRecord, clock: Clock
) -> None:
    issued = await issue_sliding_token(database, user.user_id, idle_seconds=20)
    written = []
    for _ in range(11):
        await authenticator.authenticate_token(issued.token)
        written.append(await authenticator.write_uses())
        clock.now += 1
    assert [second for second, count in enumerate(written) if count] == [0, 5, 10]


async def test_a_failed_write_loses_no_use(
    authenticator: Authenticator, header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_: TokenRepository, ages: Mapping[bytes, float]) -> None:
        raise DatabaseUnavailableError("away")

    await authenticator.authenticate(header)
    with monkeypatch.context() as patch:
        patch.setattr(TokenRepository, "touch", away)
        with pytest.raises(DatabaseUnavailableError):
            await authenticator.write_uses()
    assert await authenticator.write_uses() == 1


async def test_unused_tokens_are_removed_from_memory(authenticator: Authenticator, header: str, clock: Clock) -> None:
    await authenticator.authenticate(header)
    await authenticator.write_uses()
    assert len(authenticator._uses) == 1
    clock.now += 60
    await authenticator.write_uses()
    assert authenticator._uses == {}


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("error", [DatabaseUnavailableError("away"), RuntimeError("unforeseen")])
async def test_the_background_task_survives_errors_and_writes_the_rest_at_the_end(
    authenticator: Authenticator, header: str, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    tries: list[set[bytes]] = []

    async def touch(ages: Mapping[bytes, float]) -> None:
        tries.append(set(ages))
        if len(tries) == 1:
            raise error

    monkeypatch.setattr(module, "FLUSH_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(authenticator._tokens, "touch", touch)
    await authenticator.authenticate(header)
    running = asyncio.create_task(authenticator.run())
    await eventually(lambda: len(tries) >= 2)
    assert tries[0] == tries[1] != set()
    authenticator._clock.now += 1  # type: ignore[attr-defined]
    authenticator.cached(header)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert tries[-1] == tries[0]


async def line_of_flush(authenticator: Authenticator) -> Mapping[str, Any]:
    """Return the first log line of the background task."""
    with capture_logs() as lines:
        running = asyncio.create_task(authenticator.run())
        await eventually(lambda: bool(lines))
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return lines[0]


async def test_a_timeout_while_writing_uses_is_not_logged_as_an_unreachable_database(
    authenticator: Authenticator, header: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_EVERY_SECONDS", 0.01)
    monkeypatch.setattr(module, "FLUSH_TIMEOUT_SECONDS", 0.05)
    await authenticator.authenticate(header)
    async with database.begin() as connection:
        await connection.execute(text("lock table tokens in access exclusive mode"))
        line = await line_of_flush(authenticator)
    assert line["event"] == "token uses are not written back yet"
    assert "longer than" in line["reason"]
    assert await authenticator.write_uses() == 1


async def test_an_error_while_writing_uses_is_logged_with_its_reason(
    authenticator: Authenticator, header: str, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FLUSH_EVERY_SECONDS", 0.01)
    await authenticator.authenticate(header)
    monkeypatch.setattr(database.heartbeat, "is_responding", False)
    line = await line_of_flush(authenticator)
    assert line["reason"] == UNREACHABLE

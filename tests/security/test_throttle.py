import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from factory_logs.db.engine import Database
from factory_logs.db.login_attempts import FORGOTTEN_AT_ONCE, LoginAttemptRepository
from factory_logs.errors import DatabaseUnavailableError, TooManyTriesError
from factory_logs.security.throttle import REFUSAL_CACHE_SECONDS, LoginAttempt, LoginThrottle, caller_network
from factory_logs.settings import Settings

WINDOW = 3600
_EARLIER = text("""
    UPDATE login_tries SET
        tried_at = ARRAY(SELECT tried - make_interval(secs => :seconds) FROM unnest(tried_at) AS tried),
        ends_at = ends_at - make_interval(secs => :seconds)
""")


class Clock:
    """A clock that advances only when a test says so; earlier attempts then become older by that amount."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._now = 1000.0

    def __call__(self) -> float:
        return self._now

    async def wait(self, seconds: float) -> None:
        self._now += seconds
        async with self._database.begin() as connection:
            await connection.execute(_EARLIER, {"seconds": seconds})


class Throttles:
    """Create the throttles of several workers, all with one database and one clock."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.clock = Clock(database)

    def __call__(self, max_failures: int, **more: Any) -> LoginThrottle:
        database = more.pop("database", self.database)
        return LoginThrottle(
            database, max_failures, WINDOW, clock=self.clock, **{"max_failures_per_address": 100, **more}
        )


@pytest.fixture
def throttles(database: Database) -> Throttles:
    return Throttles(database)


@pytest.fixture
async def another(database: Database, settings: Settings) -> AsyncIterator[Database]:
    """Create the connections of a second worker."""
    another = Database(database.dsn, settings)
    yield another
    await another.dispose()


async def fail(throttle: LoginThrottle, times: int, username: str = "ann", address: str = "10.0.0.1") -> None:
    for _ in range(times):
        await throttle.admit(username, address)


async def refused(throttle: LoginThrottle, username: str = "ann", address: str = "10.0.0.1") -> int:
    """Return the seconds for which the throttle refuses the login."""
    with pytest.raises(TooManyTriesError) as raised:
        await throttle.admit(username, address)
    return raised.value.retry_after


async def rows(database: Database) -> int:
    async with database.connect() as connection:
        return int(await connection.scalar(text("select count(*) from login_tries")) or 0)


async def test_the_attempt_after_the_last_allowed_failure_is_refused(throttles: Throttles) -> None:
    throttle = throttles(3)
    await fail(throttle, 3)
    assert WINDOW - 60 < await refused(throttle) <= WINDOW


async def test_all_workers_count_together(throttles: Throttles, another: Database) -> None:
    one, two = throttles(3), throttles(3, database=another)
    await fail(one, 2)
    await fail(two, 1)
    await refused(one)
    await refused(two)


async def test_guesses_sent_to_two_workers_at_once_are_no_more_than_the_limit(
    throttles: Throttles, another: Database
) -> None:
    workers = [throttles(5), throttles(5, database=another)]
    tries = [workers[number % 2].admit("ann", "10.0.0.1") for number in range(40)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, LoginAttempt) for outcome in outcomes) == 5
    assert sum(isinstance(outcome, TooManyTriesError) for outcome in outcomes) == 35


async def test_guesses_at_many_users_at_once_are_no_more_than_the_limit_of_the_address(
    throttles: Throttles, another: Database
) -> None:
    limits = {"max_failures": 2, "max_failures_per_address": 7}
    workers = [throttles(**limits), throttles(**limits, database=another)]
    tries = [workers[number % 2].admit(f"user{number // 2}", "10.0.0.1") for number in range(40)]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(outcome, LoginAttempt) for outcome in outcomes) == 7


async def test_the_window_slides_so_the_oldest_failure_frees_one_attempt(throttles: Throttles) -> None:
    throttle = throttles(2)
    await fail(throttle, 1)
    await throttles.clock.wait(WINDOW / 2)
    await fail(throttle, 1)
    assert WINDOW / 2 - 60 < await refused(throttle) <= WINDOW / 2
    await throttles.clock.wait(WINDOW / 2 + 1)
    await fail(throttle, 1)
    await refused(throttle)


async def test_refused_attempts_do_not_prolong_the_wait(throttles: Throttles) -> None:
    throttle = throttles(1)
    await fail(throttle, 1)
    for _ in range(9):
        await throttles.clock.wait(WINDOW / 10)
        await refused(throttle)
    await throttles.clock.wait(WINDOW / 10 + 1)
    await fail(throttle, 1)


async def test_a_lowered_limit_applies_to_earlier_failures(throttles: Throttles) -> None:
    await fail(throttles(3), 2)
    await throttles.clock.wait(WINDOW / 2)
    await fail(throttles(3), 1)
    assert WINDOW / 2 < await refused(throttles(1)) <= WINDOW


async def test_a_refusal_is_cached_briefly_without_a_query(
    throttles: Throttles, monkeypatch: pytest.MonkeyPatch
) -> None:
    throttle = throttles(1)
    await fail(throttle, 1)
    await refused(throttle)
    with monkeypatch.context() as patch:
        patch.delattr(LoginAttemptRepository, "add")
        await refused(throttle)
    await throttles.clock.wait(REFUSAL_CACHE_SECONDS)
    await refused(throttle)


async def test_failures_from_one_address_do_not_lock_the_user_out_elsewhere(throttles: Throttles) -> None:
    throttle = throttles(2)
    await fail(throttle, 2)
    await refused(throttle)
    await throttle.admit("ann", "10.0.0.2")
    await throttle.admit("bob", "10.0.0.1")


async def test_an_address_that_tries_many_users_is_refused_for_all(throttles: Throttles) -> None:
    throttle = throttles(10, max_failures_per_address=20)
    for number in range(20):
        await throttle.admit(f"user{number}", "10.0.0.1")
    await refused(throttle, "somebody else")
    await throttle.admit("somebody else", "10.0.0.2")


async def test_an_attempt_refused_for_the_address_is_not_counted_for_the_user(throttles: Throttles) -> None:
    throttle = throttles(1, max_failures_per_address=1)
    await fail(throttle, 1, "mallory")
    await refused(throttle, "ann")
    await fail(throttles(1, max_failures_per_address=2), 1, "ann")


async def test_a_success_removes_the_users_failures_but_not_the_addresss(throttles: Throttles) -> None:
    throttle = throttles(3, max_failures_per_address=5)
    await fail(throttle, 3, "mallory", "10.0.0.1")
    await throttle.succeeded(await throttle.admit("ann", "10.0.0.1"))
    await fail(throttle, 2)
    await refused(throttle)


async def test_a_withdrawn_attempt_is_not_counted(throttles: Throttles) -> None:
    throttle = throttles(1)
    for _ in range(5):
        await throttle.withdraw(await throttle.admit("ann", "10.0.0.1"))


async def test_a_withdrawal_that_failed_is_repeated_before_the_next_attempt(
    throttles: Throttles, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise DatabaseUnavailableError("away")

    throttle = throttles(1)
    admitted = await throttle.admit("ann", "10.0.0.1")
    with monkeypatch.context() as patch:
        patch.setattr(LoginAttemptRepository, "take_back", away)
        await throttle.withdraw(admitted)
        with pytest.raises(DatabaseUnavailableError):
            await throttle.admit("ann", "10.0.0.1")
    await throttle.admit("ann", "10.0.0.1")


async def test_a_clock_set_back_by_hours_locks_no_user_out(throttles: Throttles) -> None:
    throttle = throttles(1)
    await fail(throttle, 1)
    await throttles.clock.wait(-6 * WINDOW)
    await throttles(1).admit("ann", "10.0.0.1")


async def test_expired_failures_are_deleted_by_later_attempts(throttles: Throttles, database: Database) -> None:
    throttle = throttles(1, max_failures_per_address=1)
    for number in range(FORGOTTEN_AT_ONCE):
        await throttle.admit("ann", f"10.0.1.{number}")
    assert await rows(database) == 2 * FORGOTTEN_AT_ONCE
    await throttles.clock.wait(WINDOW + 1)
    await throttle.admit("ann", "10.0.0.1")
    await throttle.admit("ann", "10.0.0.2")
    assert await rows(database) == 4


async def test_the_cache_of_refusals_is_limited(throttles: Throttles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("factory_logs.security.throttle.MAX_ENTRIES", 2)
    throttle = throttles(1)
    for name in ("a", "b", "c"):
        await fail(throttle, 1, name)
        await refused(throttle, name)
    assert len(throttle._refused) == 2


async def test_long_usernames_share_one_key(throttles: Throttles) -> None:
    throttle = throttles(1)
    await throttle.admit("x" * 1_000_000, "10.0.0.1")
    await refused(throttle, "x" * 999_999)


async def test_no_name_or_address_is_stored(throttles: Throttles, database: Database) -> None:
    await fail(throttles(1), 1, "ann\ud800")
    async with database.connect() as connection:
        keys = (await connection.execute(text("select key from login_tries"))).scalars().all()
    assert [len(key) for key in keys] == [32, 32]


async def test_counting_needs_no_flush_to_disk(database: Database) -> None:
    async with database.connect() as connection:
        kind = await connection.scalar(text("select relpersistence::text from pg_class where relname = 'login_tries'"))
    assert kind == "u"


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_an_ipv6_client_is_its_64_bit_network(address: str, network: str) -> None:
    assert caller_network(address) == network

import pytest

from factory_logs.errors import TooManyTriesError
from factory_logs.security.throttle import LoginThrottle, network_of


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(throttle: LoginThrottle, times: int, username: str = "ann", address: str = "10.0.0.1") -> None:
    for _ in range(times):
        throttle.admit(username, address)


def test_the_try_after_the_last_allowed_failure_is_refused(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=3, window_seconds=60, clock=clock)
    fail(throttle, 3)
    with pytest.raises(TooManyTriesError) as refused:
        throttle.admit("ann", "10.0.0.1")
    assert refused.value.retry_after == 60


def test_the_window_slides_so_the_oldest_failure_frees_one_try(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=2, window_seconds=60, clock=clock)
    fail(throttle, 1)
    clock.now += 20.5
    fail(throttle, 1)
    clock.now += 39
    with pytest.raises(TooManyTriesError) as refused:
        throttle.admit("ann", "10.0.0.1")
    assert refused.value.retry_after == 1
    clock.now += 0.5
    fail(throttle, 1)
    with pytest.raises(TooManyTriesError):
        throttle.admit("ann", "10.0.0.1")


def test_refused_tries_do_not_prolong_the_wait(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=1, window_seconds=60, clock=clock)
    fail(throttle, 1)
    for _ in range(59):
        clock.now += 1
        with pytest.raises(TooManyTriesError):
            throttle.admit("ann", "10.0.0.1")
    clock.now += 1
    throttle.admit("ann", "10.0.0.1")


def test_failures_from_one_address_do_not_lock_the_user_out_elsewhere(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=2, clock=clock)
    fail(throttle, 2)
    throttle.admit("ann", "10.0.0.2")
    throttle.admit("bob", "10.0.0.1")


def test_an_address_that_tries_many_users_is_refused_for_all(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=10, max_failures_per_address=20, clock=clock)
    for number in range(20):
        throttle.admit(f"user{number}", "10.0.0.1")
    with pytest.raises(TooManyTriesError):
        throttle.admit("somebody else", "10.0.0.1")
    throttle.admit("somebody else", "10.0.0.2")


def test_a_success_forgets_the_users_failures_but_not_the_addresss(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=3, max_failures_per_address=5, clock=clock)
    fail(throttle, 3, "mallory", "10.0.0.1")
    fail(throttle, 1)
    throttle.succeeded("ann", "10.0.0.1")
    fail(throttle, 2)
    with pytest.raises(TooManyTriesError):
        throttle.admit("ann", "10.0.0.1")


def test_a_try_that_was_never_judged_does_not_count(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=1, clock=clock)
    for _ in range(5):
        throttle.admit("ann", "10.0.0.1")
        throttle.withdraw("ann", "10.0.0.1")


def test_memory_is_bounded_and_the_longest_unused_goes_first(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=1, max_failures_per_address=1000, max_entries=3, clock=clock)
    for name in ("a", "b", "c", "d"):
        throttle.admit(name, "10.0.0.1")
    throttle.admit("a", "10.0.0.1")
    with pytest.raises(TooManyTriesError):
        throttle.admit("d", "10.0.0.1")


def test_long_usernames_share_one_bounded_key(clock: Clock) -> None:
    throttle = LoginThrottle(max_failures=1, clock=clock)
    throttle.admit("x" * 1_000_000, "10.0.0.1")
    with pytest.raises(TooManyTriesError):
        throttle.admit("x" * 999_999, "10.0.0.1")


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
def test_an_ipv6_caller_is_its_64_bit_network(address: str, network: str) -> None:
    assert network_of(address) == network

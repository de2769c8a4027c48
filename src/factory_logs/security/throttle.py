"""The login throttle: slows down guessing without letting a guesser lock anybody out (SPEC 3, 429).

A user's tries are counted per address, so failures from one place never keep that user from logging in at another;
an address's tries are counted over all users with a larger bound, as many people may sit behind one.
"""

import ipaddress
import math
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from factory_logs.errors import TooManyTriesError

Key = TypeVar("Key", bound=Hashable)

_LONGEST_USERNAME = 255
_IPV6_NETWORK_BITS = 64


class LoginThrottle:
    """Counts failed tries in a sliding window of `window_seconds`, in the memory of this worker.

    `admit` counts the try as failed before the password is checked, or tries sent all at once would each
    find the count still low; `succeeded` and `withdraw` take it back.
    """

    def __init__(
        self,
        max_failures: int = 10,
        window_seconds: float = 300.0,
        *,
        max_failures_per_address: int = 100,
        max_entries: int = 10_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._pairs: _Window[tuple[str, str]] = _Window(max_failures, window_seconds, max_entries)
        self._addresses: _Window[str] = _Window(max_failures_per_address, window_seconds, max_entries)

    def admit(self, username: str, address: str) -> None:
        """Count one more try. Raises TooManyTriesError, and counts nothing, where there were too many."""
        now = self._clock()
        pair, network = self._keys(username, address)
        wait = max(self._pairs.wait(pair, now), self._addresses.wait(network, now))
        if wait > 0:
            raise TooManyTriesError("Too many failed logins; try again later.", retry_after=math.ceil(wait))
        self._pairs.add(pair, now)
        self._addresses.add(network, now)

    def succeeded(self, username: str, address: str) -> None:
        """The admitted try was right: forget the user's failures here, but not the address's other ones."""
        pair, network = self._keys(username, address)
        self._pairs.clear(pair)
        self._addresses.take_back(network)

    def withdraw(self, username: str, address: str) -> None:
        """The admitted try was never judged, such as when the database was away: it does not count."""
        pair, network = self._keys(username, address)
        self._pairs.take_back(pair)
        self._addresses.take_back(network)

    @staticmethod
    def _keys(username: str, address: str) -> tuple[tuple[str, str], str]:
        network = network_of(address)
        return (username[: _LONGEST_USERNAME + 1], network), network


def network_of(address: str) -> str:
    """What one caller can hold of addresses: an IPv4 address itself, the /64 of an IPv6 one."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_LONGEST_USERNAME]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _IPV6_NETWORK_BITS), strict=False))


class _Window(Generic[Key]):
    """The times of the last `limit` tries by key; over `max_entries` keys the one longest unused goes."""

    def __init__(self, limit: int, seconds: float, max_entries: int) -> None:
        self._limit = limit
        self._seconds = seconds
        self._max_entries = max_entries
        self._times: dict[Key, deque[float]] = {}

    def __len__(self) -> int:
        return len(self._times)

    def wait(self, key: Key, now: float) -> float:
        """Seconds until one more try is allowed, 0 for now."""
        times = self._times.get(key)
        if times is None:
            return 0.0
        while times and times[0] + self._seconds <= now:
            times.popleft()
        return times[0] + self._seconds - now if len(times) >= self._limit else 0.0

    def add(self, key: Key, now: float) -> None:
        times = self._times.pop(key, None)
        if times is None:
            times = deque(maxlen=self._limit)
        times.append(now)
        self._times[key] = times
        if len(self._times) > self._max_entries:
            del self._times[next(iter(self._times))]

    def take_back(self, key: Key) -> None:
        times = self._times.get(key)
        if times:
            times.pop()
        if not times:
            self.clear(key)

    def clear(self, key: Key) -> None:
        self._times.pop(key, None)

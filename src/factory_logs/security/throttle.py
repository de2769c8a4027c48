"""Throttle logins (429). This slows down guessing, but does not let an attacker lock out a user.

The failed attempts of a user are counted per address, so failures from one address never lock the user out at another
address. The attempts of an address are also counted over all users, with a higher limit, because many people may share
an address. All workers share the counts, in the database. The limits are the settings `FACTORY_LOGS_LOGIN_*`.
"""

import hashlib
import ipaddress
import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from cachetools import FIFOCache

from factory_logs.db.engine import Database
from factory_logs.db.login_attempts import LoginAttemptRepository, Refusal
from factory_logs.errors import DatabaseUnavailableError, TooManyTriesError

MAX_ENTRIES = 10_000
REFUSAL_CACHE_SECONDS = 1.0
_LONGEST_USERNAME = 255
_IPV6_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class LoginAttempt:
    """An attempt to log in that was admitted. It counts as failed until `succeeded` or `withdraw` is called."""

    # A hash of the username and the address.
    user_key: bytes
    address_key: bytes
    moment: datetime


class LoginThrottle:
    """Counts failed attempts in a sliding window of `window_seconds`.

    `admit` counts the attempt as failed before the password is checked. Otherwise many simultaneous attempts would all
    see a low count. `succeeded` and `withdraw` undo this. A refusal is cached for `REFUSAL_CACHE_SECONDS`, so an
    attacker who continues causes no load on the database.
    """

    def __init__(
        self,
        database: Database,
        max_failures: int,
        window_seconds: float,
        *,
        max_failures_per_address: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._attempts = LoginAttemptRepository(database, window_seconds)
        self._max_failures = max_failures
        self._max_failures_per_address = max_failures_per_address
        self._clock = clock
        self._refused: FIFOCache[bytes, tuple[float, Refusal]] = FIFOCache(MAX_ENTRIES)
        self._pending_withdrawals: deque[LoginAttempt] = deque(maxlen=MAX_ENTRIES)

    async def admit(self, username: str, address: str) -> LoginAttempt:
        """Count one more attempt.

        Raises TooManyTriesError if there were too many, and then does not count the attempt; DatabaseUnavailableError.
        """
        network = caller_network(address)
        address_key, user_key = _key(network), _key(network, username[: _LONGEST_USERNAME + 1])
        refusal = self._cached_refusal(user_key) or self._cached_refusal(address_key)
        if refusal is None:
            await self._withdraw_pending()
            added = await self._attempts.add(
                [(user_key, self._max_failures), (address_key, self._max_failures_per_address)]
            )
            if not isinstance(added, Refusal):
                return LoginAttempt(user_key, address_key, added)
            refusal = self._cache_refusal(added)
        raise TooManyTriesError("Too many failed logins; try again later.", max(1, math.ceil(refusal.seconds)))

    async def succeeded(self, admitted: LoginAttempt) -> None:
        """Remove the user's failures from this address, because the password was right. Failures of other users remain.

        Raises DatabaseUnavailableError.
        """
        await self._attempts.clear(admitted.user_key, [admitted.address_key], admitted.moment)

    async def withdraw(self, admitted: LoginAttempt) -> None:
        """Stop counting an attempt whose password was not checked, for example because the database was unavailable.

        If the database is still unavailable, this is done before the next attempt.
        """
        self._pending_withdrawals.append(admitted)
        with suppress(DatabaseUnavailableError):
            await self._withdraw_pending()

    async def _withdraw_pending(self) -> None:
        while self._pending_withdrawals:
            attempt = self._pending_withdrawals.popleft()
            try:
                await self._attempts.take_back([attempt.user_key, attempt.address_key], attempt.moment)
            except DatabaseUnavailableError:
                self._pending_withdrawals.append(attempt)
                raise

    def _cached_refusal(self, key: bytes) -> Refusal | None:
        until, refusal = self._refused.get(key, (-math.inf, None))
        return refusal if self._clock() < until else None

    def _cache_refusal(self, refusal: Refusal) -> Refusal:
        self._refused[refusal.key] = self._clock() + min(REFUSAL_CACHE_SECONDS, refusal.seconds), refusal
        return refusal


def _key(*parts: str) -> bytes:
    """Return a key of limited size for any input. The key does not reveal the username."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


def caller_network(address: str) -> str:
    """Return the network that one client can use: the IPv4 address itself, or the /64 network of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:_LONGEST_USERNAME]
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((parsed, _IPV6_NETWORK_BITS), strict=False))

"""The login throttle: slows down guessing without letting a guesser lock anybody out (SPEC 3, 429).

A user's tries are counted per address, so failures from one place never keep that user from logging in at another;
an address's tries are counted over all users with a larger bound, as many people may sit behind one. All workers count
together, in the database.
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

from factory_logs.db.engine import Database
from factory_logs.db.login_tries import LoginTryRepository, Refusal
from factory_logs.errors import DatabaseUnavailableError, TooManyTriesError

MAX_ENTRIES = 10_000
REMEMBERED_SECONDS = 1.0
_LONGEST_USERNAME = 255
_IPV6_NETWORK_BITS = 64


@dataclass(frozen=True, slots=True)
class Try:
    """A try that was let in and counted as failed, for now."""

    pair: bytes
    network: bytes
    moment: datetime


class LoginThrottle:
    """Counts failed tries in a sliding window of `window_seconds`.

    `admit` counts the try as failed before the password is checked, or tries sent all at once would each
    find the count still low; `succeeded` and `withdraw` take it back. Who was refused is refused again from memory
    for `REMEMBERED_SECONDS`: one who goes on and on costs the database nothing.
    """

    def __init__(
        self,
        database: Database,
        max_failures: int = 10,
        window_seconds: float = 300.0,
        *,
        max_failures_per_address: int = 100,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tries = LoginTryRepository(database, window_seconds)
        self._max_failures = max_failures
        self._max_failures_per_address = max_failures_per_address
        self._clock = clock
        self._refused: dict[bytes, tuple[float, Refusal]] = {}
        self._unjudged: deque[Try] = deque(maxlen=MAX_ENTRIES)

    async def admit(self, username: str, address: str) -> Try:
        """Count one more try.

        Raises TooManyTriesError, and counts nothing, where there were too many; DatabaseUnavailableError.
        """
        network = network_of(address)
        place, pair = _key(network), _key(network, username[: _LONGEST_USERNAME + 1])
        refusal = self._remembered(pair) or self._remembered(place)
        if refusal is None:
            await self._take_back_unjudged()
            added = await self._tries.add([(pair, self._max_failures), (place, self._max_failures_per_address)])
            if not isinstance(added, Refusal):
                return Try(pair, place, added)
            refusal = self._remember(added)
        raise TooManyTriesError("Too many failed logins; try again later.", max(1, math.ceil(refusal.seconds)))

    async def succeeded(self, admitted: Try) -> None:
        """The try was right: forget the user's failures here, but not the address's other ones.

        Raises DatabaseUnavailableError.
        """
        await self._tries.clear(admitted.pair, [admitted.network], admitted.moment)

    async def withdraw(self, admitted: Try) -> None:
        """The try was never judged, such as when the database was away: it does not count.

        Where the database is away still, that is made up for before the next try.
        """
        self._unjudged.append(admitted)
        with suppress(DatabaseUnavailableError):
            await self._take_back_unjudged()

    async def _take_back_unjudged(self) -> None:
        while self._unjudged:
            unjudged = self._unjudged.popleft()
            try:
                await self._tries.take_back([unjudged.pair, unjudged.network], unjudged.moment)
            except DatabaseUnavailableError:
                self._unjudged.append(unjudged)
                raise

    def _remembered(self, key: bytes) -> Refusal | None:
        until, refusal = self._refused.get(key, (-math.inf, None))
        return refusal if self._clock() < until else None

    def _remember(self, refusal: Refusal) -> Refusal:
        self._refused.pop(refusal.key, None)
        self._refused[refusal.key] = self._clock() + min(REMEMBERED_SECONDS, refusal.seconds), refusal
        if len(self._refused) > MAX_ENTRIES:
            del self._refused[next(iter(self._refused))]
        return refusal


def _key(*parts: str) -> bytes:
    """Bounded whatever was sent for a name; what is kept names nobody."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).digest()


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

"""Find the user of a request's token, from memory if possible (docs/reference/http-api.md, Authentication).

Authenticating a request writes no row and rarely reads one. A token is cached for `token_cache_seconds`, so a
revocation takes effect within that time. The last uses of tokens are collected in memory and written in batches.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from cachetools import FIFOCache

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository, ValidToken
from factory_logs.errors import NOT_AUTHENTICATED, DatabaseUnavailableError, UnauthenticatedError
from factory_logs.permissions import CurrentUser, Level
from factory_logs.security.tokens import hash_token, parse_authorization
from factory_logs.settings import Settings

MAX_ENTRIES = 10_000
LONGEST_CACHED_HEADER = 256
FLUSH_EVERY_SECONDS = 1.0
FLUSH_TIMEOUT_SECONDS = 5.0
LATE = f"it took longer than {FLUSH_TIMEOUT_SECONDS:g} s, in this process or in the database"

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class _TokenUse:
    """The last use of a token, and the last use that is stored in the database, by the authenticator's clock."""

    at: float
    due_every: float
    written: float = -math.inf
    written_at: float = -math.inf


@dataclass(slots=True)
class _CachedToken:
    """A token that was valid when it was read from the database. It is accepted without another look-up before
    `until`."""

    user: CurrentUser
    until: float
    use: _TokenUse


class _TokensByHash(FIFOCache[bytes, _CachedToken]):
    """The cached tokens by their hash. A token that is evicted is no longer accepted under any header; otherwise
    `revoke` could not end it."""

    def popitem(self) -> tuple[bytes, _CachedToken]:
        token_hash, evicted = super().popitem()
        evicted.until = -math.inf
        return token_hash, evicted


class Authenticator:
    """Finds the user of a token. Each worker has one authenticator, which is used on one event loop only.

    `run` must run in the background; otherwise tokens expire although they are used.
    """

    def __init__(self, database: Database, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens = TokenRepository(database)
        self._trust_seconds = settings.token_cache_seconds
        self._touch_seconds = settings.token_touch_seconds
        self._clock = clock
        self._by_header: FIFOCache[str, _CachedToken] = FIFOCache(MAX_ENTRIES)
        self._known = _TokensByHash(MAX_ENTRIES)
        self._refused_until: FIFOCache[bytes, float] = FIFOCache(MAX_ENTRIES)
        self._look_ups: dict[bytes, asyncio.Task[_CachedToken]] = {}
        self._uses: dict[bytes, _TokenUse] = {}

    def cached(self, authorization: str | None) -> CurrentUser | None:
        """Return the user of this header if it is cached, else None. The hot path uses this."""
        try:  # get() would cost twice as much
            known = self._by_header[authorization]  # type: ignore[index]
        except KeyError:
            return None
        now = self._clock()
        if now >= known.until:
            return None
        known.use.at = now
        return known.user

    async def authenticate(self, authorization: str | None) -> CurrentUser:
        """Return the user of an Authorization header.

        Raises UnauthenticatedError, or DatabaseUnavailableError if the token is not cached and cannot be read.
        """
        user = self.cached(authorization)
        if user is not None:
            return user
        if authorization is None:
            raise UnauthenticatedError("This needs the header `Authorization: Token token=<token>`.")
        token = parse_authorization(authorization)
        if token is None:
            raise UnauthenticatedError(
                "The Authorization header holds no token; send `Authorization: Token token=<token>`."
            )
        known = await self._find(hash_token(token))
        if len(authorization) <= LONGEST_CACHED_HEADER:
            self._by_header[authorization] = known
        return known.user

    async def authenticate_token(self, token: str) -> CurrentUser:
        """Return the user of a token that is not in the header, for example in the password of InfluxDB 1's clients.
        Raises the errors of `authenticate`."""
        return (await self._find(hash_token(token))).user

    def remember(self, token: str, user: CurrentUser, *, idle_seconds: int | None) -> None:
        """Cache a token that this worker has just issued."""
        found = ValidToken(user.user_id, user.username, user.level, idle_seconds, None, 0.0)
        self._cache_token(hash_token(token), found, self._clock())

    async def revoke(self, authorization: str) -> None:
        """Revoke the token of an Authorization header. This worker refuses it from now on.

        Raises UnauthenticatedError if the header contains no token, DatabaseUnavailableError.
        """
        token = parse_authorization(authorization)
        if token is None:
            raise _refusal()
        token_hash = hash_token(token)
        await self._tokens.revoke(token_hash)
        # A look-up that began before the revocation may end after it: do not cache its result.
        look_up = self._look_ups.get(token_hash)
        if look_up is not None:
            await asyncio.wait([look_up])
        known = self._known.pop(token_hash, None)
        if known is not None:
            known.until = -math.inf  # this ends the entry of each header under which the token is cached
        self._refused_until[token_hash] = self._clock() + self._trust_seconds

    async def _find(self, token_hash: bytes) -> _CachedToken:
        now = self._clock()
        known = self._known.get(token_hash)
        if known is not None and now < known.until:
            known.use.at = now
            return known
        if now < self._refused_until.get(token_hash, -math.inf):
            raise _refusal()
        look_up = self._look_ups.get(token_hash)
        if look_up is None:
            look_up = asyncio.create_task(self._look_up(token_hash))
            self._look_ups[token_hash] = look_up
            look_up.add_done_callback(lambda done: self._end_look_up(token_hash, done))
        return await asyncio.shield(look_up)

    async def _look_up(self, token_hash: bytes) -> _CachedToken:
        asked_at = self._clock()
        found = await self._tokens.look_up(token_hash)
        if found is None:
            self._refused_until[token_hash] = asked_at + self._trust_seconds
            self._known.pop(token_hash, None)
            raise _refusal()
        return self._cache_token(token_hash, found, asked_at)

    def _end_look_up(self, token_hash: bytes, look_up: asyncio.Task[_CachedToken]) -> None:
        del self._look_ups[token_hash]
        if not look_up.cancelled():
            look_up.exception()  # read the exception; otherwise asyncio logs it if all callers were cancelled

    def _cache_token(self, token_hash: bytes, found: ValidToken, as_of: float) -> _CachedToken:
        lives = [self._trust_seconds]
        if found.idle_seconds is not None:
            lives.append(found.idle_seconds)
        elif found.seconds_left is not None:
            lives.append(found.seconds_left)
        user = CurrentUser(found.user_id, found.username, Level(found.permission), found.only_write)
        known = _CachedToken(user, as_of + min(lives), self._used(token_hash, found))
        self._known[token_hash] = known
        self._refused_until.pop(token_hash, None)
        return known

    def _used(self, token_hash: bytes, found: ValidToken) -> _TokenUse:
        now = self._clock()
        use = self._uses.get(token_hash)
        if use is None:
            due_every = self._touch_seconds
            if found.idle_seconds is not None:  # the use of a short-lived token must be written earlier
                due_every = min(due_every, found.idle_seconds / 4)
            use = _TokenUse(now, due_every)
            if found.seconds_since_use is not None:  # another worker may have written it recently
                use.written_at = now - found.seconds_since_use
            self._uses[token_hash] = use
        use.at = now
        return use

    async def write_uses(self, *, everything: bool = False) -> int:
        """Write the last uses that are due, or all unwritten ones with `everything`. Return their number.

        Raises DatabaseUnavailableError. The next call writes them.
        """
        now = self._clock()
        due = {
            token_hash: use.at
            for token_hash, use in self._uses.items()
            if use.at > use.written and (everything or now - use.written_at >= use.due_every)
        }
        await self._tokens.touch({token_hash: now - at for token_hash, at in due.items()})
        for token_hash, at in due.items():
            use = self._uses[token_hash]
            use.written, use.written_at = at, now
        self._drop_unused(now)
        return len(due)

    def _drop_unused(self, now: float) -> None:
        """Remove the uses that are written and whose token is no longer cached."""
        for token_hash, use in list(self._uses.items()):
            resting = now - max(use.at, use.written_at)
            if use.at <= use.written and resting >= max(use.due_every, self._trust_seconds):
                del self._uses[token_hash]

    async def run(self) -> None:
        """Write uses when they are due, until cancelled; then write the rest."""
        try:
            while True:
                await asyncio.sleep(FLUSH_EVERY_SECONDS)
                await self._flush_or_log()
        finally:
            await self._flush_or_log(everything=True)

    async def _flush_or_log(self, *, everything: bool = False) -> None:
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_SECONDS):
                await self.write_uses(everything=everything)
        except DatabaseUnavailableError as error:
            log.warning("token uses are not written back yet", reason=error.message, final=everything)
        except TimeoutError:  # usually because the process was too busy
            log.warning("token uses are not written back yet", reason=LATE, final=everything)
        except Exception:
            log.exception("token uses not written back", final=everything)


def _refusal() -> UnauthenticatedError:
    return UnauthenticatedError(NOT_AUTHENTICATED)

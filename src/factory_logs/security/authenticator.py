"""Who is calling: Authorization header to user, from memory wherever possible (SPEC 3).

No request writes a row, and hardly one reads one, just to be authenticated. What was looked up is trusted for
`token_cache_seconds`, which is how soon a revocation is seen; uses are gathered here and written in bulk.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository, ValidToken
from factory_logs.errors import DatabaseUnavailableError, UnauthenticatedError
from factory_logs.security.levels import Level
from factory_logs.security.tokens import hash_token, parse_authorization
from factory_logs.settings import Settings

MAX_ENTRIES = 10_000
LONGEST_CACHED_HEADER = 256
FLUSH_EVERY_SECONDS = 1.0
FLUSH_TIMEOUT_SECONDS = 5.0

K = TypeVar("K")
V = TypeVar("V")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The user behind a request."""

    user_id: int
    username: str
    level: Level


@dataclass(slots=True)
class _Use:
    """One token's last use, and how much of it the database knows. Times are of the authenticator's clock."""

    at: float
    due_every: float
    written: float = -math.inf
    written_at: float = -math.inf


@dataclass(slots=True)
class _Known:
    """A token that was good when it was looked up, trusted until `until`."""

    user: CurrentUser
    until: float
    use: _Use


class Authenticator:
    """Answers who a token belongs to. One per worker; all of it runs on one event loop.

    `run` must run beside the requests, or sliding tokens end although they are used.
    """

    def __init__(self, database: Database, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._tokens = TokenRepository(database)
        self._trust_seconds = settings.token_cache_seconds
        self._touch_seconds = settings.token_touch_seconds
        self._clock = clock
        self._by_header: dict[str, _Known] = {}
        self._known: dict[bytes, _Known] = {}
        self._refused_until: dict[bytes, float] = {}
        self._look_ups: dict[bytes, asyncio.Task[_Known]] = {}
        self._uses: dict[bytes, _Use] = {}

    def cached(self, authorization: str | None) -> CurrentUser | None:
        """The user of this header if that is known without asking the database. For the hot path."""
        known = self._by_header.get(authorization)  # type: ignore[arg-type]
        if known is None:
            return None
        now = self._clock()
        if now >= known.until:
            return None
        known.use.at = now
        return known.user

    async def authenticate(self, authorization: str | None) -> CurrentUser:
        """The user behind an Authorization header.

        Raises UnauthenticatedError, or DatabaseUnavailableError where the token must be looked up and cannot.
        """
        user = self.cached(authorization)
        if user is not None:
            return user
        if authorization is None:
            raise UnauthenticatedError("This needs the header `Authorization: Token token=<token>`.")
        token = parse_authorization(authorization)
        if token is None:
            raise UnauthenticatedError("The Authorization header is not `Token token=<token>`.")
        known = await self._find(hash_token(token))
        if len(authorization) <= LONGEST_CACHED_HEADER:
            _put(self._by_header, authorization, known)
        return known.user

    async def authenticate_token(self, token: str) -> CurrentUser:
        """As `authenticate`, for a token that came another way, such as InfluxDB 1's password."""
        return (await self._find(hash_token(token))).user

    def remember(self, token: str, user: CurrentUser, *, idle_seconds: int | None) -> None:
        """Trust a token that this worker issued just now, as if it had been looked up."""
        found = ValidToken(user.user_id, user.username, user.level, None, idle_seconds, None, 0.0)
        self._keep(hash_token(token), found, self._clock())

    async def _find(self, token_hash: bytes) -> _Known:
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

    async def _look_up(self, token_hash: bytes) -> _Known:
        asked_at = self._clock()
        found = await self._tokens.look_up(token_hash)
        if found is None:
            _put(self._refused_until, token_hash, asked_at + self._trust_seconds)
            self._known.pop(token_hash, None)
            raise _refusal()
        return self._keep(token_hash, found, asked_at)

    def _end_look_up(self, token_hash: bytes, look_up: asyncio.Task[_Known]) -> None:
        del self._look_ups[token_hash]
        if not look_up.cancelled():
            look_up.exception()  # seen, or asyncio complains where every caller has gone away

    def _keep(self, token_hash: bytes, found: ValidToken, as_of: float) -> _Known:
        lives = [self._trust_seconds]
        if found.idle_seconds is not None:
            lives.append(found.idle_seconds)
        elif found.seconds_left is not None:
            lives.append(found.seconds_left)
        user = CurrentUser(found.user_id, found.username, Level(found.permission))
        known = _Known(user, as_of + min(lives), self._used(token_hash, found))
        _put(self._known, token_hash, known)
        self._refused_until.pop(token_hash, None)
        return known

    def _used(self, token_hash: bytes, found: ValidToken) -> _Use:
        now = self._clock()
        use = self._uses.get(token_hash)
        if use is None:
            due_every = self._touch_seconds
            if found.idle_seconds is not None:  # a token with a short life cannot wait that long
                due_every = min(due_every, found.idle_seconds / 4)
            use = _Use(now, due_every)
            if found.seconds_since_use is not None:  # another worker may have written it lately
                use.written_at = now - found.seconds_since_use
            self._uses[token_hash] = use
        use.at = now
        return use

    async def flush_touches(self, *, everything: bool = False) -> int:
        """Write back the uses that are due, or `everything` not yet written; how many those were.

        Raises DatabaseUnavailableError, and then loses nothing.
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
        """Forget uses that are written and that no trusted entry can renew any more."""
        for token_hash, use in list(self._uses.items()):
            resting = now - max(use.at, use.written_at)
            if use.at <= use.written and resting >= max(use.due_every, self._trust_seconds):
                del self._uses[token_hash]

    async def run(self) -> None:
        """Write uses back as they fall due, until cancelled; then write the rest."""
        try:
            while True:
                await asyncio.sleep(FLUSH_EVERY_SECONDS)
                await self._flush_or_log()
        finally:
            await self._flush_or_log(everything=True)

    async def _flush_or_log(self, *, everything: bool = False) -> None:
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_SECONDS):
                await self.flush_touches(everything=everything)
        except (DatabaseUnavailableError, TimeoutError):
            log.warning("token uses not written back, the database is away", final=everything)
        except Exception:
            log.exception("token uses not written back", final=everything)


def _refusal() -> UnauthenticatedError:
    return UnauthenticatedError("The token is unknown, revoked or expired.")


def _put(entries: dict[K, V], key: K, value: V) -> None:
    """Set the key as the newest; over MAX_ENTRIES the oldest goes."""
    entries.pop(key, None)
    entries[key] = value
    if len(entries) > MAX_ENTRIES:
        del entries[next(iter(entries))]

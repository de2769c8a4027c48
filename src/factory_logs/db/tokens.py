"""The SQL of the table `tokens`.

Tokens are passed as hashes, which `security.tokens` computes. All times come from PostgreSQL's clock, so workers with
different clocks agree on the end of a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    Row,
    any_,
    cast,
    delete,
    extract,
    func,
    literal_column,
    or_,
    select,
    text,
    update,
)

from factory_logs.db.engine import Database, Pool
from factory_logs.db.models import TIME, Token, User

_NOW: ColumnElement[datetime] = func.timezone(literal_column("'utc'"), func.now(), type_=TIME)

_VALID: ColumnElement[bool] = Token.revoked_at.is_(None) & or_(Token.expires_at.is_(None), Token.expires_at > _NOW)

PURGED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ValidToken:
    """The user and lifetime of a token.

    `idle_seconds` is the time from the last use to the end, or None if the end is fixed. `seconds_left` is the time to
    the current end, or None for never, and `seconds_since_use` is None if no use has been written yet; both are
    relative to PostgreSQL's clock at the look-up. An `only_write` token may only store logs.
    """

    user_id: int
    username: str
    permission: str
    idle_seconds: int | None
    seconds_left: float | None
    seconds_since_use: float | None
    only_write: bool = False


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One row of the list of tokens. All times are UTC without zone; None means never."""

    token_hash: bytes
    username: str
    label: str | None
    only_write: bool
    created_at: datetime
    last_used_at: datetime | None
    idle_seconds: int | None
    expires_at: datetime | None
    revoked_at: datetime | None
    has_ended: bool


_LOOK_UP = (
    select(
        Token.user_id,
        User.username,
        User.permission,
        Token.idle_seconds,
        cast(extract("epoch", Token.expires_at - _NOW), Double),
        cast(extract("epoch", _NOW - Token.last_used_at), Double),
        Token.only_write,
    )
    .join(User, User.user_id == Token.user_id)
    .where(_VALID, User.disabled_at.is_(None))
)

_LIST = (
    select(
        Token.token_hash,
        User.username,
        Token.label,
        Token.only_write,
        Token.created_at,
        Token.last_used_at,
        Token.idle_seconds,
        Token.expires_at,
        Token.revoked_at,
        (~_VALID).label("has_ended"),
    )
    .join(User, User.user_id == Token.user_id)
    .order_by(User.username, Token.created_at, Token.token_hash)
)

_ISSUE = text("""
    insert into tokens (token_hash, user_id, idle_seconds, expires_at, label, only_write)
    select cast(:token_hash as bytea), user_id, cast(:idle_seconds as integer),
        case
            when cast(:idle_seconds as integer) is null then cast(:expires_at as timestamp)
            else (now() at time zone 'utc') + cast(:idle_seconds as integer) * interval '1 second'
        end,
        cast(:label as varchar), cast(:only_write as boolean)
    from users
    where user_id = cast(:user_id as integer) and disabled_at is null
    for key share
    returning expires_at
""")
"""Locks the user's row, so that a user who is deleted at the same time gets no token and causes no error."""

_TOUCH = text("""
    with uses as (
        select token_hash, (now() at time zone 'utc') - age * interval '1 second' as used_at
        from unnest(cast(:hashes as bytea[]), cast(:ages as double precision[])) as given (token_hash, age)
    ), locked as (
        select token_hash from tokens
        where token_hash = any(cast(:hashes as bytea[])) and revoked_at is null
        order by token_hash
        for no key update
    )
    update tokens set
        last_used_at = greatest(tokens.last_used_at, uses.used_at),
        expires_at = case
            when tokens.idle_seconds is null then tokens.expires_at
            else greatest(tokens.expires_at, uses.used_at + tokens.idle_seconds * interval '1 second')
        end
    from uses join locked using (token_hash)
    where tokens.token_hash = uses.token_hash and tokens.revoked_at is null
""")
"""Rows are locked in the same order everywhere; otherwise two workers that write the same tokens could deadlock."""


class TokenRepository:
    """Stores, finds and revokes tokens. Every method raises DatabaseUnavailableError if PostgreSQL is unreachable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(
        self,
        token_hash: bytes,
        user_id: int,
        *,
        expires_at: datetime | None,
        label: str | None = None,
        only_write: bool = False,
    ) -> bool:
        """Store a token that ends at `expires_at` (UTC without zone), or never.

        Return False if the user no longer exists or is disabled.
        """
        issued = await self._issue(token_hash, user_id, None, expires_at, label, only_write)
        return issued is not None

    async def issue_sliding(
        self,
        token_hash: bytes,
        user_id: int,
        *,
        idle_seconds: int,
        label: str | None = None,
        only_write: bool = False,
    ) -> datetime | None:
        """Store a token that ends `idle_seconds` after its last use. Return its end if it is not used (UTC without
        zone).

        Return None if the user no longer exists or is disabled.
        """
        issued = await self._issue(token_hash, user_id, idle_seconds, None, label, only_write)
        return None if issued is None else issued.expires_at

    async def _issue(
        self,
        token_hash: bytes,
        user_id: int,
        idle_seconds: int | None,
        expires_at: datetime | None,
        label: str | None,
        only_write: bool,
    ) -> Row[Any] | None:
        values = {
            "token_hash": token_hash,
            "user_id": user_id,
            "idle_seconds": idle_seconds,
            "expires_at": expires_at,
            "label": label,
            "only_write": only_write,
        }
        async with self._database.begin(Pool.AUTHENTICATION) as connection:
            return (await connection.execute(_ISSUE, values)).one_or_none()

    async def list(self, user_id: int | None = None) -> Sequence[TokenRecord]:
        """Return all tokens that are not deleted, or those of one user, ordered by user and creation."""
        statement = _LIST if user_id is None else _LIST.where(Token.user_id == user_id)
        async with self._database.connect(Pool.AUTHENTICATION) as connection:
            rows = (await connection.execute(statement)).all()
        return [TokenRecord(**row._mapping) for row in rows]

    async def look_up(self, token_hash: bytes) -> ValidToken | None:
        """Return the user and lifetime of a valid token, or None. A disabled user has no valid token."""
        async with self._database.connect(Pool.AUTHENTICATION) as connection:
            row = (await connection.execute(_LOOK_UP.where(Token.token_hash == token_hash))).one_or_none()
        return None if row is None else ValidToken(*row)

    async def touch(self, ages: Mapping[bytes, float]) -> None:
        """Store the last use of many tokens in one statement; `ages` contains the seconds since each use.

        The end of a sliding token only moves later. A revoked token is not changed.
        """
        if not ages:
            return
        async with self._database.begin(Pool.AUTHENTICATION) as connection:
            await connection.execute(_TOUCH, {"hashes": list(ages), "ages": list(ages.values())})

    async def revoke(self, token_hash: bytes) -> int:
        """Revoke one token. Return the number of revoked tokens, 0 or 1."""
        return await self._revoke(Token.token_hash == token_hash)

    async def revoke_all(self, user_id: int) -> int:
        """Revoke all tokens of one user. Return their number."""
        return await self._revoke(Token.user_id == user_id)

    async def purge(self, keep_seconds: float, at_once: int = PURGED_AT_ONCE) -> int:
        """Delete tokens that expired or were revoked longer ago than this. Return their number.

        Each transaction deletes `at_once` rows, so it is short, and skips rows that another transaction has locked.
        """
        limit = _NOW - timedelta(seconds=keep_seconds)
        ended = or_(Token.revoked_at < limit, Token.expires_at < limit)
        some = select(Token.token_hash).where(ended).limit(at_once).with_for_update(skip_locked=True)
        statement = (
            delete(Token)
            .where(Token.token_hash == any_(func.array(some.scalar_subquery())))
            .execution_options(synchronize_session=False)
        )
        forgotten, last = 0, at_once
        while last == at_once:
            async with self._database.begin(Pool.AUTHENTICATION) as connection:
                last = (await connection.execute(statement)).rowcount
            forgotten += last
        return forgotten

    async def _revoke(self, which: ColumnElement[bool]) -> int:
        alive = which & Token.revoked_at.is_(None)
        locked = select(Token.token_hash).where(alive).order_by(Token.token_hash).with_for_update(key_share=True)
        statement = (
            update(Token)
            .where(Token.token_hash.in_(locked), Token.revoked_at.is_(None))
            .values(revoked_at=_NOW)
            .execution_options(synchronize_session=False)
        )
        async with self._database.begin(Pool.AUTHENTICATION) as connection:
            revoked: int = (await connection.execute(statement)).rowcount
        return revoked

"""The tokens: the only SQL over `tokens`.

Tokens come and go here as their hashes; `security.tokens` makes them. All times are taken from PostgreSQL's clock,
so workers whose clocks differ agree on when a token ends.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, any_, delete, extract, func, insert, literal_column, or_, select, text, update

from factory_logs.db.engine import Database
from factory_logs.db.models import TIME, Token, User

_NOW: ColumnElement[datetime] = func.timezone(literal_column("'utc'"), func.now(), type_=TIME)

PURGED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class ValidToken:
    """Whose a token is and how long it lives.

    `idle_seconds` is the sliding life after the last use, None for an end that does not move; `expires_at` is
    the end as it stands, None for never. `seconds_left` and `seconds_since_use` are those times as seen from
    PostgreSQL's clock at the look-up; the latter is None for a token whose use was never written.
    """

    user_id: int
    username: str
    permission: str
    expires_at: datetime | None
    idle_seconds: int | None
    seconds_left: float | None
    seconds_since_use: float | None


_LOOK_UP = (
    select(
        Token.user_id,
        User.username,
        User.permission,
        Token.expires_at,
        Token.idle_seconds,
        extract("epoch", Token.expires_at - _NOW).label("seconds_left"),
        extract("epoch", _NOW - Token.last_used_at).label("seconds_since_use"),
    )
    .join(User, User.user_id == Token.user_id)
    .where(Token.revoked_at.is_(None), or_(Token.expires_at.is_(None), Token.expires_at > _NOW))
)

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
"""Rows are locked in one order, or two workers writing the same tokens would end in a deadlock."""


class TokenRepository:
    """Stores, finds, ends tokens. Every method raises DatabaseUnavailableError while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(self, token_hash: bytes, user_id: int, *, expires_at: datetime | None) -> None:
        """Store a token that ends at `expires_at` (UTC without zone), or never."""
        statement = insert(Token).values(token_hash=token_hash, user_id=user_id, expires_at=expires_at)
        async with self._database.begin() as connection:
            await connection.execute(statement)

    async def issue_sliding(self, token_hash: bytes, user_id: int, *, idle_seconds: int) -> datetime:
        """Store a token that ends `idle_seconds` after its last use; its end (UTC without zone) as of now."""
        end = _NOW + timedelta(seconds=idle_seconds)
        statement = (
            insert(Token)
            .values(token_hash=token_hash, user_id=user_id, idle_seconds=idle_seconds, expires_at=end)
            .returning(end)
        )
        async with self._database.begin() as connection:
            return (await connection.execute(statement)).scalar_one()

    async def look_up(self, token_hash: bytes) -> ValidToken | None:
        """Whose token this is; None for one that is unknown, revoked or expired."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_LOOK_UP.where(Token.token_hash == token_hash))).one_or_none()
        if row is None:
            return None
        return ValidToken(
            user_id=row.user_id,
            username=row.username,
            permission=row.permission,
            expires_at=row.expires_at,
            idle_seconds=row.idle_seconds,
            seconds_left=None if row.seconds_left is None else float(row.seconds_left),
            seconds_since_use=None if row.seconds_since_use is None else float(row.seconds_since_use),
        )

    async def touch(self, ages: Mapping[bytes, float]) -> None:
        """Write back the last use of many tokens, each `ages` seconds ago, in one statement.

        A sliding token's end moves along, and never back; a revoked token stays as it is.
        """
        if not ages:
            return
        async with self._database.begin() as connection:
            await connection.execute(_TOUCH, {"hashes": list(ages), "ages": list(ages.values())})

    async def revoke(self, token_hash: bytes) -> int:
        """End one token now; how many that were, 0 or 1."""
        return await self._revoke(Token.token_hash == token_hash)

    async def revoke_all(self, user_id: int) -> int:
        """End all tokens of one user now; how many that were."""
        return await self._revoke(Token.user_id == user_id)

    async def purge(self, keep_seconds: float, at_once: int = PURGED_AT_ONCE) -> int:
        """Forget tokens that ended, by time or by revocation, longer ago than this; how many those were.

        In transactions of `at_once` rows: each is short, and waits for nobody who uses such a row.
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
            async with self._database.begin() as connection:
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
        async with self._database.begin() as connection:
            revoked: int = (await connection.execute(statement)).rowcount
        return revoked

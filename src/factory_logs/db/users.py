"""The SQL of the table `users`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, delete, exists, func, select, update
from sqlalchemy.dialects.postgresql import insert

from factory_logs.db.engine import Database, Pool
from factory_logs.db.models import UTC_NOW, User
from factory_logs.errors import BadRequestError, ConflictError, FieldError

_LONGEST_NAME = 255
_COLUMNS = (
    User.user_id,
    User.username,
    User.display_name,
    User.password_hash,
    User.permission,
    User.created_at,
    User.disabled_at,
)


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One user. `password_hash` is None for a user who cannot log in, such as a device."""

    user_id: int
    username: str
    display_name: str
    password_hash: str | None
    permission: str
    created_at: datetime
    disabled_at: datetime | None


class UserRepository:
    """Creates, finds, changes and deletes users. Every method raises DatabaseUnavailableError if PostgreSQL is
    unreachable."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, username: str, display_name: str, password_hash: str | None, permission: str) -> UserRecord:
        """Store a new user.

        Raises ConflictError if the name is taken, BadRequestError if a name cannot be stored.
        """
        for field, name in (("username", username), ("display_name", display_name)):
            if not _can_be_stored(name):
                reason = f"must be 1 to {_LONGEST_NAME} characters, without NUL"
                raise BadRequestError(f"{field} {reason}", [FieldError(field, reason)])
        statement = (
            insert(User)
            .values(
                username=username,
                display_name=display_name,
                password_hash=password_hash,
                permission=permission,
            )
            .on_conflict_do_nothing(index_elements=[User.username])
            .returning(*_COLUMNS)
        )
        async with self._database.begin(Pool.AUTHENTICATION) as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise ConflictError(f"There is a user {username!r} already.")
        return _record(row)

    async def get_by_name(self, username: str) -> UserRecord | None:
        """Return the user with exactly this name, or None."""
        if not _can_be_stored(username):
            return None
        async with self._database.connect(Pool.AUTHENTICATION) as connection:
            row = (await connection.execute(select(*_COLUMNS).where(User.username == username))).one_or_none()
        return None if row is None else _record(row)

    async def exists(self, username: str) -> bool:
        """Return whether a user with exactly this name exists."""
        if not _can_be_stored(username):
            return False
        async with self._database.connect(Pool.AUTHENTICATION) as connection:
            found = await connection.scalar(select(exists().where(User.username == username)))
        return bool(found)

    async def list(self) -> Sequence[UserRecord]:
        """Return all users, by name."""
        async with self._database.connect(Pool.AUTHENTICATION) as connection:
            rows = (await connection.execute(select(*_COLUMNS).order_by(User.username))).all()
        return [_record(row) for row in rows]

    async def set_password(self, user_id: int, password_hash: str) -> None:
        """Replace the password. Tokens stay valid."""
        await self._change(user_id, {"password_hash": password_hash})

    async def set_permission(self, user_id: int, permission: str) -> None:
        """Replace the permission level."""
        await self._change(user_id, {"permission": permission})

    async def disable(self, user_id: int) -> None:
        """Refuse logins and tokens of the user from now on. If the user is already disabled, `disabled_at` does not
        change."""
        await self._change(user_id, {"disabled_at": func.coalesce(User.disabled_at, UTC_NOW)})

    async def enable(self, user_id: int) -> None:
        """Accept logins and new tokens again."""
        await self._change(user_id, {"disabled_at": None})

    async def delete(self, user_id: int) -> None:
        """Delete the user and all of the user's tokens. Records keep the name in `created_by`."""
        async with self._database.begin(Pool.AUTHENTICATION) as connection:
            await connection.execute(delete(User).where(User.user_id == user_id))

    async def _change(self, user_id: int, values: Mapping[str, object]) -> None:
        async with self._database.begin(Pool.AUTHENTICATION) as connection:
            await connection.execute(update(User).where(User.user_id == user_id).values(**values))


def _record(row: Row[*tuple[Any, ...]]) -> UserRecord:
    return UserRecord(**row._mapping)


def _can_be_stored(name: str) -> bool:
    """Return whether PostgreSQL can store the name. A query for another name would fail instead of finding nothing."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(name) <= _LONGEST_NAME and "\0" not in name

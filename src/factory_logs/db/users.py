"""The users: the only SQL over `users`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, exists, select
from sqlalchemy.dialects.postgresql import insert

from factory_logs.db.engine import Database
from factory_logs.db.models import User
from factory_logs.errors import BadRequestError, ConflictError, FieldError

_LONGEST_NAME = 255
_COLUMNS = (
    User.user_id,
    User.username,
    User.display_name,
    User.password_hash,
    User.permission,
    User.created_at,
)


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One user. `password_hash` is None for one who cannot log in, such as a device."""

    user_id: int
    username: str
    display_name: str
    password_hash: str | None
    permission: str
    created_at: datetime


class UserRepository:
    """Creates and finds users. Every method raises DatabaseUnavailableError while PostgreSQL is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, username: str, display_name: str, password_hash: str | None, permission: str) -> UserRecord:
        """Store a new user.

        Raises ConflictError where the name is taken, BadRequestError where a name cannot be stored.
        """
        for field, name in (("username", username), ("display_name", display_name)):
            if not _can_be_stored(name):
                fault = f"must be 1 to {_LONGEST_NAME} characters, without NUL"
                raise BadRequestError(f"{field} {fault}", [FieldError(field, fault)])
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
        async with self._database.begin() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise ConflictError(f"There is a user {username!r} already.")
        return _record(row)

    async def get_by_name(self, username: str) -> UserRecord | None:
        """The user of exactly this name."""
        if not _can_be_stored(username):
            return None
        async with self._database.connect() as connection:
            row = (await connection.execute(select(*_COLUMNS).where(User.username == username))).one_or_none()
        return None if row is None else _record(row)

    async def exists(self, username: str) -> bool:
        """Whether there is a user of exactly this name."""
        if not _can_be_stored(username):
            return False
        async with self._database.connect() as connection:
            found = await connection.scalar(select(exists().where(User.username == username)))
        return bool(found)

    async def list(self) -> Sequence[UserRecord]:
        """All users, by name."""
        async with self._database.connect() as connection:
            rows = (await connection.execute(select(*_COLUMNS).order_by(User.username))).all()
        return [_record(row) for row in rows]


def _record(row: Row[*tuple[Any, ...]]) -> UserRecord:
    return UserRecord(**row._mapping)


def _can_be_stored(name: str) -> bool:
    """Whether PostgreSQL can hold the name; asking it for another would be an error, not an empty answer."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return 0 < len(name) <= _LONGEST_NAME and "\0" not in name

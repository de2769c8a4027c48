"""The SQL for idempotency keys. It runs in the transaction of the write that has the key."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import asyncpg

from factory_logs.db.errors import FAILED
from factory_logs.errors import DatabaseUnavailableError

_CLAIM = """
INSERT INTO idempotency_keys (user_id, key, fingerprint, status) VALUES ($1, $2, $3, 201)
ON CONFLICT DO NOTHING RETURNING true
"""
_FINISH = "UPDATE idempotency_keys SET answer = $3 WHERE user_id = $1 AND key = $2"
_FIND = """
SELECT fingerprint, factory_log_id, answer, created_at FROM idempotency_keys WHERE user_id = $1 AND key = $2
"""
_FIND_MANY = """
SELECT fingerprint, factory_log_id, answer, created_at
FROM unnest($1::integer[], $2::text[]) WITH ORDINALITY AS wanted (user_id, key, ordinal)
     LEFT JOIN idempotency_keys USING (user_id, key)
ORDER BY ordinal
"""
_PURGE = """
DELETE FROM idempotency_keys
WHERE created_at < (now() AT TIME ZONE 'utc') - make_interval(secs => $1)
   OR created_at < (now() AT TIME ZONE 'utc') - make_interval(secs => $2) AND starts_with(key, $3)
"""


class Key(Protocol):
    """The Idempotency-Key of one write."""

    @property
    def user_id(self) -> int: ...
    @property
    def key(self) -> str: ...
    @property
    def fingerprint(self) -> bytes: ...


class FirstResponse(NamedTuple):
    """The response to the first write with a key: its body, or the id and `created_at` of a single log."""

    fingerprint: bytes
    factory_log_id: int | None
    body: bytes | None
    created_at: datetime


async def claim(connection: asyncpg.Connection, key: Key) -> bool:
    """Return whether this transaction is the first to use the key. If another transaction is using it, wait for its
    end."""
    return bool(await connection.fetchval(_CLAIM, key.user_id, key.key, key.fingerprint))


async def finish(connection: asyncpg.Connection, key: Key, body: bytes) -> None:
    """Store the response for a claimed key. It is committed together with the records."""
    await connection.execute(_FINISH, key.user_id, key.key, body)


async def find(connection: asyncpg.Connection, key: Key) -> FirstResponse | None:
    """Return the response to the first write with this key, or None if the key is new."""
    row = await connection.fetchrow(_FIND, key.user_id, key.key)
    return None if row is None else FirstResponse(*row)


async def find_after_commit(connection: asyncpg.Connection, keys: Sequence[Key]) -> list[FirstResponse | None]:
    """Return the same as `find` for each key, with one statement. Raises DatabaseUnavailableError for an error of the
    statement, because the logs that were committed before it would be sent again if it counted as an error of theirs.
    """
    try:
        rows = await connection.fetch(_FIND_MANY, [key.user_id for key in keys], [key.key for key in keys])
    except asyncpg.PostgresError as error:
        raise DatabaseUnavailableError(FAILED) from error
    return [None if row["fingerprint"] is None else FirstResponse(*row) for row in rows]


async def purge(
    connection: asyncpg.Connection, older_than_seconds: float, prefix: str, prefix_older_than_seconds: float
) -> int:
    """Delete keys older than `older_than_seconds`, and keys with this prefix that are older than
    `prefix_older_than_seconds`. Return their number."""
    status: str = await connection.execute(_PURGE, older_than_seconds, prefix_older_than_seconds, prefix)
    return int(status.rpartition(" ")[2])

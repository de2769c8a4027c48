"""The SQL of Idempotency-Key, spoken inside the transaction of the write that it guards."""

from datetime import datetime
from typing import NamedTuple, Protocol

import asyncpg

_CLAIM = """
INSERT INTO idempotency_keys (user_id, key, fingerprint, status) VALUES ($1, $2, $3, 201)
ON CONFLICT DO NOTHING RETURNING true
"""
_FINISH = "UPDATE idempotency_keys SET answer = $3 WHERE user_id = $1 AND key = $2"
_FIND = """
SELECT fingerprint, factory_log_id, answer, created_at FROM idempotency_keys WHERE user_id = $1 AND key = $2
"""
RETRY_PREFIX = " retry of "
"""Begins the keys that we made ourselves of what was sent. There is one for each write, so they are kept shorter.

It begins with a space, as no key of a caller can: a header's value does not.
"""

RETRY_SECONDS = 3600.0

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


class FirstAnswer(NamedTuple):
    """What the first write with a key was answered: the body, or for one log its id; `created_at` is that log's."""

    fingerprint: bytes
    factory_log_id: int | None
    answer: bytes | None
    created_at: datetime


async def claim(connection: asyncpg.Connection, key: Key) -> bool:
    """Whether this transaction is the first to use the key. Waits for another that uses it right now."""
    return bool(await connection.fetchval(_CLAIM, key.user_id, key.key, key.fingerprint))


async def finish(connection: asyncpg.Connection, key: Key, answer: bytes) -> None:
    """Keep the answer of a claimed key; it is committed together with what was stored."""
    await connection.execute(_FINISH, key.user_id, key.key, answer)


async def find(connection: asyncpg.Connection, key: Key) -> FirstAnswer | None:
    """What the key was used for before; None where it is new."""
    row = await connection.fetchrow(_FIND, key.user_id, key.key)
    return None if row is None else FirstAnswer(*row)


async def purge(connection: asyncpg.Connection, older_than_seconds: float) -> None:
    """Forget keys whose time is over."""
    await connection.execute(_PURGE, older_than_seconds, RETRY_SECONDS, RETRY_PREFIX)

"""Idempotency-Key: a retried write gets the first response and stores nothing
(docs/reference/http-api.md#idempotency). `FACTORY_LOGS_IDEMPOTENCY_SECONDS` sets how long a key is stored."""

import hashlib
import re
from dataclasses import dataclass

from factory_logs.db import idempotency_keys
from factory_logs.db.connection_pool import BatchConnections
from factory_logs.db.idempotency_keys import FirstResponse
from factory_logs.errors import BadRequestError, ConflictError, FactoryLogsError, OverloadedError, TooLargeError

MAX_KEY_LENGTH = 255
REFUSALS = (BadRequestError, TooLargeError)
"""The errors of a body for which the first write with its key may have a response: see `first_response`."""
RETRY_PREFIX = " retry of "
"""The prefix of keys that the service derives from requests.

It begins with a space, so no client can send such a key: header values do not begin with a space.
"""
RETRY_SECONDS = 3600.0
"""How long a derived key is stored: shorter than other keys, because each such write has one."""
_KEY = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class WriteKey:
    """An idempotency key of a user for one write, with the fingerprint of the request."""

    user_id: int
    key: str
    fingerprint: bytes


class KeyedBody:
    """An idempotency key while its body is still being read.

    The fingerprint is a SHA-256 over the route and the uncompressed body, because a retry may compress the same records
    differently.
    """

    def __init__(self, user_id: int, header: bytes, route: str) -> None:
        """Raise BadRequestError unless the header is 1 to 255 visible ASCII characters."""
        if not _KEY.fullmatch(header):
            raise BadRequestError(f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} visible ASCII characters")
        self._user_id = user_id
        self._key = header.decode("ascii")
        self._hash = hashlib.sha256(route.encode() + b"\0")

    def feed(self, data: bytes | bytearray) -> None:
        """Add the next part of the body."""
        self._hash.update(data)

    def key(self) -> WriteKey:
        """Return the key. Call this after the end of the body."""
        return WriteKey(self._user_id, self._key, self._hash.digest())


def key_of(header: bytes | None, user_id: int, route: str, body: bytes | bytearray) -> WriteKey | None:
    """Return the key of a request whose body has arrived, or None without a header. Raises the errors of KeyedBody."""
    if header is None:
        return None
    keyed = KeyedBody(user_id, header, route)
    keyed.feed(body)
    return keyed.key()


def retry_key(key: WriteKey) -> WriteKey:
    """Return a key derived from the request, for protocols in which a retry must have no effect.

    InfluxDB's clients rely on this when they retry a write whose response was lost
    (docs/reference/http-api.md#influxdbs-calls). The key is stored for RETRY_SECONDS.
    """
    return WriteKey(key.user_id, f"{RETRY_PREFIX}{key.fingerprint.hex()}", key.fingerprint)


def just_forgotten() -> OverloadedError:
    """Return the error for a write whose expired key was deleted between the claim of the key and its look-up."""
    return OverloadedError("This Idempotency-Key has just expired; try again")


def check_same(key: WriteKey, first_fingerprint: bytes) -> None:
    """Raise ConflictError if the key was first used for another request."""
    if key.fingerprint != first_fingerprint:
        raise ConflictError("This Idempotency-Key was already used with another body")


class _UnusedKeyError(FactoryLogsError):
    """Raised to roll back the claim of an unused key."""


async def find_stored(connections: BatchConnections, key: WriteKey) -> FirstResponse | None:
    """Return the response to the first write with this key, or None if no write is stored under it.

    If a write with the key is being stored, wait for its end. Raises OverloadedError, DatabaseUnavailableError.
    """
    try:
        async with connections.transaction() as connection:
            if await idempotency_keys.claim(connection, key):
                raise _UnusedKeyError("The key is unused")
            first = await idempotency_keys.find(connection, key)
    except _UnusedKeyError:
        return None
    if first is None:
        raise just_forgotten()
    return first


async def first_response(connections: BatchConnections, key: WriteKey | None, error: FactoryLogsError) -> FirstResponse:
    """Return the response to the first write with this key. If there is no key, or no write is stored under it, raise
    `error`, the reason to refuse this request.

    The service may have become stricter since it stored the first request, for example by a lower limit. Raises
    ConflictError if the key was used for another body, OverloadedError, DatabaseUnavailableError.
    """
    if key is None:
        raise error
    first = await find_stored(connections, key)
    if first is None:
        error.is_key_used = False
        raise error
    check_same(key, first.fingerprint)
    return first


async def purge_old_keys(connections: BatchConnections, older_than_seconds: float) -> int:
    """Delete keys older than this, and derived keys older than RETRY_SECONDS. Return their number.

    Raises OverloadedError, DatabaseUnavailableError.
    """
    async with connections.transaction() as connection:
        return await idempotency_keys.purge(connection, older_than_seconds, RETRY_PREFIX, RETRY_SECONDS)

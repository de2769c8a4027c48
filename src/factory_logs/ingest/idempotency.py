"""Idempotency-Key: a write that is sent again is answered again and stores nothing (SPEC 7)."""

import asyncio
import hashlib
import random
import re
from dataclasses import dataclass

import structlog

from factory_logs.db import idempotency
from factory_logs.db.idempotency import RETRY_PREFIX
from factory_logs.errors import BadRequestError, ConflictError, FactoryLogsError, OverloadedError
from factory_logs.ingest.batch_connections import BatchConnections

MAX_KEY_LENGTH = 255
FORGET_EVERY_SECONDS = 600
_log = structlog.get_logger(__name__)
_KEY = re.compile(rb"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")


@dataclass(frozen=True, slots=True)
class WriteKey:
    """A user's key for one write, with the fingerprint of what was asked."""

    user_id: int
    key: str
    fingerprint: bytes


class KeyedBody:
    """A key while the body it stands for is still arriving.

    The fingerprint is a SHA-256 over the route and the uncompressed body, as a client may pack the same records
    differently when it tries again.
    """

    def __init__(self, user_id: int, header: bytes, route: str) -> None:
        """Raises BadRequestError unless the header is 1 to 255 visible ASCII characters."""
        if not _KEY.fullmatch(header):
            raise BadRequestError(f"Idempotency-Key must be 1 to {MAX_KEY_LENGTH} visible ASCII characters")
        self._user_id = user_id
        self._key = header.decode("ascii")
        self._hash = hashlib.sha256(route.encode() + b"\0")

    def feed(self, data: bytes) -> None:
        """The next piece of the body."""
        self._hash.update(data)

    def key(self) -> WriteKey:
        """The key, once the body has ended."""
        return WriteKey(self._user_id, self._key, self._hash.digest())


def retry_key(key: WriteKey) -> WriteKey:
    """A key that stands for the request itself, for protocols in which sending the same again changes nothing.

    InfluxDB's clients rely on it and send a write again whose answer was lost (SPEC 8). It is kept for an hour.
    """
    return WriteKey(key.user_id, f"{RETRY_PREFIX}{key.fingerprint.hex()}", key.fingerprint)


def just_forgotten() -> OverloadedError:
    """The error of a write whose key was taken and then, before it was asked what for, purged as too old."""
    return OverloadedError("This Idempotency-Key has just been forgotten; try again")


def check_same(key: WriteKey, first_fingerprint: bytes) -> None:
    """Raises ConflictError where the key was first used for something else."""
    if key.fingerprint != first_fingerprint:
        raise ConflictError("This Idempotency-Key was already used with another body")


async def forget_old_keys(connections: BatchConnections, older_than_seconds: float) -> None:
    """Every few minutes, for ever. Workers do so at different times; a database that is away is tried again later."""
    while True:
        await asyncio.sleep(FORGET_EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        try:
            async with connections.transaction() as connection:
                await idempotency.purge(connection, older_than_seconds)
        except FactoryLogsError as error:
            _log.warning("old idempotency keys are not forgotten yet", reason=error.message)

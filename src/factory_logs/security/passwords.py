"""Passwords, stored as argon2id and checked beside the event loop.

One hash takes tens of milliseconds and 64 MiB, so only a few run at a time and only so many may wait.
"""

import asyncio
import base64
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from factory_logs.errors import OverloadedError

T = TypeVar("T")


class Passwords:
    """Hashes and verifies passwords; at most `max_concurrent` at once, `max_waiting` more in line.

    The threads are the bound, rather than a semaphore before `asyncio.to_thread`: a caller that gives up
    does not stop its thread, and would hand its place on while the hash still runs.
    """

    def __init__(
        self, *, max_concurrent: int = 2, max_waiting: int = 100, hasher: PasswordHasher | None = None
    ) -> None:
        self._hasher = hasher or PasswordHasher()
        self._threads = ThreadPoolExecutor(max_concurrent, thread_name_prefix="password")
        self._max_pending = max_concurrent + max_waiting
        self._pending = 0
        self._nobodys_hash = _unmatchable_hash(self._hasher)

    async def hash(self, password: str) -> str:
        """The text to store. Raises OverloadedError where too many wait already."""
        secret = _encode(password)
        return await self._beside_the_loop(lambda: self._hasher.hash(secret))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Whether `password` is the one behind `stored`.

        None, for an unknown user or one without a password, costs as much and is never right: the time tells
        nobody which users exist. Raises OverloadedError where too many wait already.
        """
        secret = _encode(password)
        return await self._beside_the_loop(lambda: self._matches(secret, stored))

    def _matches(self, secret: bytes, stored: str | None) -> bool:
        try:
            return self._hasher.verify(self._nobodys_hash if stored is None else stored, secret)
        except (VerificationError, InvalidHashError):
            return False

    async def _beside_the_loop(self, work: Callable[[], T]) -> T:
        if self._pending >= self._max_pending:
            raise OverloadedError("Too many logins at once; try again in a moment.")
        self._pending += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        future.add_done_callback(self._finished)
        return await future

    def _finished(self, _: "asyncio.Future[T]") -> None:
        self._pending -= 1


def _encode(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")


def _unmatchable_hash(hasher: PasswordHasher) -> str:
    """An encoded hash of no known password, with the costs of `hasher`, without spending them now."""

    def random_part(length: int) -> str:
        return base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")

    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${random_part(hasher.salt_len)}${random_part(hasher.hash_len)}"

"""Hash and verify passwords with argon2id, in threads outside the event loop.

One hash takes tens of milliseconds and 64 MiB, so the number of concurrent and of waiting hashes is limited.
"""

import asyncio
import base64
import secrets
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from factory_logs.errors import BadRequestError, OverloadedError

T = TypeVar("T")

FEWEST_CHARACTERS = 8


def check_password(password: str) -> None:
    """Raise BadRequestError if a new password is too short."""
    if len(password) < FEWEST_CHARACTERS:
        raise BadRequestError(f"the password has fewer than {FEWEST_CHARACTERS} characters")


class Passwords:
    """Hashes and verifies passwords: up to `max_concurrent` at a time, and up to `max_waiting` more may wait.

    The limit is the size of the thread pool. A semaphore before `asyncio.to_thread` would not work: cancelling a caller
    does not stop its thread, so the semaphore would be released while the hash still runs.
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
        """Return the hash to store. Raises OverloadedError if too many are waiting."""
        secret = _encode(password)
        return await self._run_in_thread(lambda: self._hasher.hash(secret))

    async def verify(self, password: str, stored: str | None) -> bool:
        """Return whether `password` matches the hash `stored`.

        If `stored` is None (an unknown user, or a user without a password), return False after the same time. Otherwise
        the time would reveal which users exist. Raises OverloadedError if too many are waiting.
        """
        secret = _encode(password)
        return await self._run_in_thread(lambda: self._matches(secret, stored))

    def _matches(self, secret: bytes, stored: str | None) -> bool:
        try:
            return self._hasher.verify(self._nobodys_hash if stored is None else stored, secret)
        except (VerificationError, InvalidHashError):
            return False

    async def _run_in_thread(self, work: Callable[[], T]) -> T:
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
    """Return a hash that no password matches, with the cost parameters of `hasher`. No hash is computed for it."""

    def random_part(length: int) -> str:
        return base64.b64encode(secrets.token_bytes(length)).decode().rstrip("=")

    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    return f"$argon2id$v=19${costs}${random_part(hasher.salt_len)}${random_part(hasher.hash_len)}"

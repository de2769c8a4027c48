import asyncio
import threading
import time
from typing import Literal

import pytest
from argon2 import PasswordHasher

from factory_logs.errors import OverloadedError
from factory_logs.security.passwords import Passwords

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


async def test_a_hash_is_argon2id_salted_and_matches_only_its_password() -> None:
    passwords = Passwords(hasher=CHEAP)
    first, second = await passwords.hash("sesame"), await passwords.hash("sesame")
    assert first.startswith("$argon2id$")
    assert first != second
    assert await passwords.verify("sesame", first)
    assert not await passwords.verify("Sesame", first)


@pytest.mark.parametrize("stored", [None, "", "plain", "$argon2id$broken"])
async def test_no_password_matches_a_missing_or_broken_hash(stored: str | None) -> None:
    assert not await Passwords(hasher=CHEAP).verify("", stored)


async def test_any_text_can_be_a_password() -> None:
    passwords = Passwords(hasher=CHEAP)
    for password in ("", "\0", "\ud800", "ü" * 10_000):
        assert await passwords.verify(password, await passwords.hash(password))


class CountingHasher(PasswordHasher):
    """Records the passwords that it verifies and how many verifications run concurrently."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=8, parallelism=1)
        self.verified: list[str | bytes] = []
        self.running = 0
        self.most_running = 0
        self._lock = threading.Lock()

    def verify(self, hash: str | bytes, password: str | bytes) -> Literal[True]:  # noqa: A002
        with self._lock:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.verified.append(hash)
        time.sleep(0.01)
        try:
            return super().verify(hash, password)
        finally:
            with self._lock:
                self.running -= 1


async def test_an_unknown_user_costs_a_hash_of_the_same_parameters() -> None:
    hasher = CountingHasher()
    passwords = Passwords(hasher=hasher)
    stored = await passwords.hash("sesame")
    await passwords.verify("wrong", None)
    (dummy,) = hasher.verified
    assert isinstance(dummy, str)
    assert dummy.split("$")[:4] == stored.split("$")[:4]
    assert [len(part) for part in dummy.split("$")] == [len(part) for part in stored.split("$")]


async def test_the_number_of_concurrent_hashes_is_limited_even_if_callers_are_cancelled() -> None:
    hasher = CountingHasher()
    passwords = Passwords(max_concurrent=2, hasher=hasher)
    tries = [asyncio.create_task(passwords.verify("x", None)) for _ in range(10)]
    await asyncio.sleep(0.005)
    for impatient in tries[:2]:
        impatient.cancel()
    await asyncio.gather(*tries, return_exceptions=True)
    assert hasher.most_running == 2


async def test_over_the_limit_of_waiting_logins_a_login_is_refused_at_once() -> None:
    passwords = Passwords(max_concurrent=1, max_waiting=1, hasher=CountingHasher())
    results = await asyncio.gather(*(passwords.verify("x", None) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [bool, bool, OverloadedError]
    assert await passwords.verify("x", None) is False

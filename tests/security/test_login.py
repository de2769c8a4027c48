from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher

from factory_logs.db.engine import Database
from factory_logs.db.login_attempts import LoginAttemptRepository
from factory_logs.db.users import UserRepository
from factory_logs.errors import DatabaseUnavailableError, TooManyTriesError, UnauthenticatedError
from factory_logs.permissions import Level
from factory_logs.schemas.timestamps import server_time
from factory_logs.security.authenticator import Authenticator
from factory_logs.security.login import LoginService
from factory_logs.security.passwords import Passwords
from factory_logs.security.throttle import LoginThrottle
from factory_logs.settings import Settings


@pytest.fixture
def passwords() -> Passwords:
    return Passwords(hasher=PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture
def authenticator(database: Database, settings: Settings) -> Authenticator:
    return Authenticator(database, settings)


@pytest.fixture
async def service(
    database: Database, settings: Settings, authenticator: Authenticator, passwords: Passwords
) -> LoginService:
    users = UserRepository(database)
    await users.create("ann", "Ann Example", await passwords.hash("sesame"), "FACTORY")
    await users.create("jig-7", "Jig 7", None, "SYSTEM")
    return LoginService(
        database,
        authenticator,
        settings,
        throttle=LoginThrottle(database, 3, 300.0, max_failures_per_address=100),
        passwords=passwords,
    )


async def test_a_correct_password_returns_a_token_that_every_worker_accepts(
    service: LoginService, authenticator: Authenticator, database: Database, settings: Settings
) -> None:
    result = await service.login("ann", "sesame", "10.0.0.1")
    assert (result.username, result.display_name, result.level) == ("ann", "Ann Example", Level.FACTORY)
    for worker in (authenticator, Authenticator(database, settings)):
        assert (await worker.authenticate(f"Token token={result.token}")).user_id == result.user_id


async def test_the_token_expires_the_idle_time_from_now(service: LoginService, settings: Settings) -> None:
    idle = timedelta(seconds=settings.session_idle_seconds)
    before = server_time()
    result = await service.login("ann", "sesame", "10.0.0.1")
    assert before <= result.expires_at - idle <= server_time()


@pytest.mark.parametrize(
    ("username", "password"),
    [("ann", "wrong"), ("ann", ""), ("nobody", "sesame"), ("Ann", "sesame"), ("jig-7", ""), ("\0", "\ud800")],
)
async def test_every_wrong_pair_is_refused_with_the_same_message(
    service: LoginService, username: str, password: str
) -> None:
    with pytest.raises(UnauthenticatedError) as refused:
        await service.login(username, password, "10.0.0.1")
    assert refused.value.message == "The username or the password is wrong."


async def test_after_too_many_failures_even_the_right_password_must_wait(service: LoginService) -> None:
    for _ in range(3):
        with pytest.raises(UnauthenticatedError):
            await service.login("ann", "wrong", "10.0.0.1")
    with pytest.raises(TooManyTriesError):
        await service.login("ann", "sesame", "10.0.0.1")
    assert await service.login("ann", "sesame", "10.0.0.2")


async def test_successful_logins_are_not_counted(service: LoginService) -> None:
    for _ in range(5):
        await service.login("ann", "sesame", "10.0.0.1")


async def test_an_attempt_while_the_database_is_unreachable_is_not_counted(
    service: LoginService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(UserRepository, "get_by_name", away)
        for _ in range(5):
            with pytest.raises(DatabaseUnavailableError):
                await service.login("ann", "sesame", "10.0.0.1")
    assert await service.login("ann", "sesame", "10.0.0.1")


async def test_without_the_database_every_login_is_an_error_and_not_counted(
    service: LoginService, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: Any) -> None:
        raise DatabaseUnavailableError("away")

    with monkeypatch.context() as patch:
        patch.setattr(LoginAttemptRepository, "add", away)
        for _ in range(5):
            with pytest.raises(DatabaseUnavailableError):
                await service.login("ann", "wrong", "10.0.0.1")
    assert await service.login("ann", "sesame", "10.0.0.1")


async def test_a_disabled_user_is_refused_like_a_wrong_password(
    service: LoginService, authenticator: Authenticator, database: Database, settings: Settings
) -> None:
    issued = await service.login("ann", "sesame", "10.0.0.1")
    users = UserRepository(database)
    await users.disable(issued.user_id)
    with pytest.raises(UnauthenticatedError, match=r"The username or the password is wrong\."):
        await service.login("ann", "sesame", "10.0.0.1")
    with pytest.raises(UnauthenticatedError):
        await Authenticator(database, settings).authenticate_token(issued.token)
    await users.enable(issued.user_id)
    assert (await service.login("ann", "sesame", "10.0.0.1")).user_id == issued.user_id


@pytest.mark.parametrize("change", [UserRepository.disable, UserRepository.delete])
async def test_a_user_who_is_disabled_or_deleted_during_a_login_gets_no_token(
    service: LoginService,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[UserRepository, int], Awaitable[None]],
) -> None:
    verify = Passwords.verify

    async def verify_and_change(self: Passwords, password: str, stored: str | None) -> bool:
        user = await UserRepository(database).get_by_name("ann")
        assert user is not None
        await change(UserRepository(database), user.user_id)
        return await verify(self, password, stored)

    monkeypatch.setattr(Passwords, "verify", verify_and_change)
    with pytest.raises(UnauthenticatedError):
        await service.login("ann", "sesame", "10.0.0.1")

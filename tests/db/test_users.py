import asyncio

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.errors import BadRequestError, ConflictError


@pytest.fixture
def users(database: Database) -> UserRepository:
    return UserRepository(database)


async def test_a_created_user_is_found_by_exactly_its_name(users: UserRepository) -> None:
    created = await users.create("Ann", "Ann Example", "hash", "SYSTEM")
    assert await users.get_by_name("Ann") == created
    assert (created.display_name, created.password_hash, created.permission) == (
        "Ann Example",
        "hash",
        "SYSTEM",
    )
    assert await users.exists("Ann")
    assert await users.get_by_name("ann") is None
    assert not await users.exists("ann")


async def test_a_user_may_have_no_password(users: UserRepository) -> None:
    assert (await users.create("jig-7", "Jig 7", None, "SYSTEM")).password_hash is None


async def test_a_taken_name_is_a_conflict_and_changes_nothing(users: UserRepository) -> None:
    first = await users.create("ann", "Ann", "hash", "SYSTEM")
    with pytest.raises(ConflictError, match="ann"):
        await users.create("ann", "Another", None, "OVERVIEW")
    assert await users.get_by_name("ann") == first


async def test_of_creations_at_the_same_time_one_wins(users: UserRepository) -> None:
    tries = (users.create("ann", "Ann", None, "SYSTEM") for _ in range(5))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, ConflictError) for result in results) == 4


async def test_users_are_listed_by_name(users: UserRepository) -> None:
    for name in ("zz-late", "aa-early"):
        await users.create(name, name, None, "OVERVIEW")
    names = [user.username for user in await users.list()]
    assert names == sorted(names)
    assert {"aa-early", "zz-late"} <= set(names)


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "\ud800", "x" * 256])
async def test_a_name_that_cannot_be_stored_is_nobodys(users: UserRepository, name: str) -> None:
    assert await users.get_by_name(name) is None
    assert not await users.exists(name)
    with pytest.raises(BadRequestError) as refused:
        await users.create(name, "Ann", None, "OVERVIEW")
    assert refused.value.errors[0].field == "username"


async def test_the_longest_name_and_any_script_are_stored(users: UserRepository) -> None:
    name = "工" * 255
    await users.create(name, name, None, "OVERVIEW")
    assert await users.exists(name)

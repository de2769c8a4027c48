import asyncio

import pytest
from sqlalchemy import text

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository
from factory_logs.db.users import UserRepository
from factory_logs.errors import BadRequestError, ConflictError, DatabaseUnavailableError


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


async def test_an_existing_name_is_a_conflict_and_changes_nothing(users: UserRepository) -> None:
    first = await users.create("ann", "Ann", "hash", "SYSTEM")
    with pytest.raises(ConflictError, match="ann"):
        await users.create("ann", "Another", None, "OVERVIEW")
    assert await users.get_by_name("ann") == first


async def test_one_of_several_concurrent_creations_succeeds(users: UserRepository) -> None:
    tries = (users.create("ann", "Ann", None, "SYSTEM") for _ in range(5))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, ConflictError) for result in results) == 4


async def test_an_id_that_a_user_already_has_is_no_error_of_the_new_user(
    users: UserRepository, database: Database
) -> None:
    """Logical replication copies no sequences, so the ids of the promoted server begin at 1 again."""
    first = await users.create("ann", "Ann", None, "SYSTEM")
    async with database.begin() as connection:
        await connection.execute(text(f"SELECT setval('users_user_id_seq', {first.user_id}, false)"))
    with pytest.raises(DatabaseUnavailableError, match="assigns ids"):
        await users.create("bob", "Bob", None, "SYSTEM")
    assert (await users.create("bob", "Bob", None, "SYSTEM")).user_id == first.user_id + 1


async def test_users_are_listed_by_name(users: UserRepository) -> None:
    for name in ("zz-late", "aa-early"):
        await users.create(name, name, None, "OVERVIEW")
    names = [user.username for user in await users.list()]
    assert names == sorted(names)
    assert {"aa-early", "zz-late"} <= set(names)


@pytest.mark.parametrize("name", ["", "\0", "a\0b", "\ud800", "x" * 256])
async def test_a_name_that_cannot_be_stored_belongs_to_no_user(users: UserRepository, name: str) -> None:
    assert await users.get_by_name(name) is None
    assert not await users.exists(name)
    with pytest.raises(BadRequestError) as refused:
        await users.create(name, "Ann", None, "OVERVIEW")
    assert refused.value.errors[0].field == "username"


async def test_the_longest_name_and_any_script_are_stored(users: UserRepository) -> None:
    name = "工" * 255
    await users.create(name, name, None, "OVERVIEW")
    assert await users.exists(name)


async def test_a_changed_user_is_found_as_changed(users: UserRepository) -> None:
    ann = await users.create("ann", "Ann", "hash", "SYSTEM")
    await users.set_password(ann.user_id, "another hash")
    await users.set_permission(ann.user_id, "ADMIN")
    await users.disable(ann.user_id)
    changed = await users.get_by_name("ann")
    assert changed is not None
    assert (changed.password_hash, changed.permission) == ("another hash", "ADMIN")
    assert changed.disabled_at is not None
    await users.enable(ann.user_id)
    enabled = await users.get_by_name("ann")
    assert enabled is not None
    assert enabled.disabled_at is None


async def test_a_deleted_users_id_is_not_given_to_another(users: UserRepository, database: Database) -> None:
    first = await users.create("ann", "Ann", None, "SYSTEM")
    await TokenRepository(database).issue(bytes(32), first.user_id, expires_at=None)
    await users.delete(first.user_id)
    assert await users.get_by_name("ann") is None
    assert await TokenRepository(database).look_up(bytes(32)) is None
    second = await users.create("ann", "Ann", None, "SYSTEM")
    assert second.user_id > first.user_id
    assert await TokenRepository(database).look_up(bytes(32)) is None

import itertools

import pytest
from sqlalchemy.exc import IntegrityError

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.errors import ForbiddenError
from factory_logs.permissions import CurrentUser, Level, check_permission


async def test_the_database_accepts_each_level_for_a_user_and_no_other_text(database: Database) -> None:
    users = UserRepository(database)
    for level in Level:
        assert (await users.create(level.lower(), level.title(), None, level)).permission == level
    with pytest.raises(IntegrityError, match="permission_is_known"):
        await users.create("ann", "Ann", None, "BOSS")


def test_the_levels_are_in_the_order_of_the_reference() -> None:
    assert list(Level) == ["OVERVIEW", "TECHNICAL", "ADMIN", "FACTORY", "SYSTEM"]


def test_each_level_includes_itself_and_the_lower_ones() -> None:
    for rank, level in enumerate(Level):
        assert [level.includes(other) for other in Level] == [other <= rank for other in range(len(Level))]


@pytest.mark.parametrize(("lower", "higher"), list(itertools.combinations(Level, 2)))
def test_a_level_includes_only_itself_and_the_lower_ones(lower: Level, higher: Level) -> None:
    check_permission(CurrentUser(1, "ann", lower), lower)
    check_permission(CurrentUser(1, "ann", higher), lower)
    with pytest.raises(ForbiddenError):
        check_permission(CurrentUser(1, "ann", lower), higher)


def test_the_error_names_the_required_and_the_users_level() -> None:
    with pytest.raises(ForbiddenError, match=r"SYSTEM.*ann.*OVERVIEW"):
        check_permission(CurrentUser(1, "ann", Level.OVERVIEW), Level.SYSTEM)


@pytest.mark.parametrize("level", Level)
def test_an_only_write_token_may_only_store_logs_if_the_user_may(level: Level) -> None:
    jig = CurrentUser(1, "jig", level, only_write=True)
    for needed in Level:
        with pytest.raises(ForbiddenError, match="only store logs"):
            check_permission(jig, needed)
    if level is Level.SYSTEM:
        check_permission(jig, Level.SYSTEM, stores_logs=True)
        return
    with pytest.raises(ForbiddenError, match=f"SYSTEM.*{level}"):
        check_permission(jig, Level.SYSTEM, stores_logs=True)

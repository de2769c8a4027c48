import pytest
from sqlalchemy.exc import IntegrityError

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.schemas.auth import Level


async def test_the_database_accepts_each_level_for_a_user_and_no_other_text(database: Database) -> None:
    users = UserRepository(database)
    for level in Level:
        assert (await users.create(level.lower(), level.title(), None, level)).permission == level
    with pytest.raises(IntegrityError, match="permission_is_known"):
        await users.create("ann", "Ann", None, "BOSS")


def test_each_level_includes_itself_and_the_lower_ones() -> None:
    for place, level in enumerate(Level):
        assert [level.includes(other) for other in Level] == [at <= place for at in range(len(Level))]

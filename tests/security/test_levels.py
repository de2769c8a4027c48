from factory_logs.db.models import LEVELS
from factory_logs.security.levels import Level


def test_the_database_knows_the_same_levels_in_the_same_order() -> None:
    assert tuple(Level) == LEVELS


def test_each_level_includes_itself_and_those_below_it() -> None:
    for place, level in enumerate(Level):
        assert [level.includes(other) for other in Level] == [at <= place for at in range(len(Level))]

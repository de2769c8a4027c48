import itertools

import pytest

from factory_logs.errors import ForbiddenError
from factory_logs.security.authenticator import CurrentUser
from factory_logs.security.levels import Level
from factory_logs.security.permission import check


@pytest.mark.parametrize(("lower", "higher"), list(itertools.combinations(Level, 2)))
def test_a_level_includes_itself_and_those_below_only(lower: Level, higher: Level) -> None:
    check(CurrentUser(1, "ann", lower), lower)
    check(CurrentUser(1, "ann", higher), lower)
    with pytest.raises(ForbiddenError):
        check(CurrentUser(1, "ann", lower), higher)


def test_the_refusal_names_the_needed_and_the_held_level() -> None:
    with pytest.raises(ForbiddenError, match=r"SYSTEM.*ann.*OVERVIEW"):
        check(CurrentUser(1, "ann", Level.OVERVIEW), Level.SYSTEM)

"""Whether a user may: the one check that every call goes through (SPEC 3)."""

from factory_logs.errors import ForbiddenError
from factory_logs.security.authenticator import CurrentUser
from factory_logs.security.levels import Level


def check(user: CurrentUser, level: Level) -> None:
    """Raise ForbiddenError, naming both levels, unless the user's level includes `level`."""
    if not user.level.includes(level):
        raise ForbiddenError(f"This needs the permission {level}; {user.username} has {user.level}.")

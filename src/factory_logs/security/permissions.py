"""The user of a request, and the check of the user's permission, which every call makes.

The levels are in `schemas.auth`, because the database and the commands need them too.
"""

from dataclasses import dataclass

from factory_logs.errors import ForbiddenError
from factory_logs.schemas.auth import Level


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The user of a request. With an `only_write` token the user may store logs and nothing else."""

    user_id: int
    username: str
    level: Level
    only_write: bool = False


def check_permission(user: CurrentUser, level: Level, *, stores_logs: bool = False) -> None:
    """Raise ForbiddenError unless the user's level includes `level` and the token may be used for the call.

    A token issued with `--only-write` may be used only for calls with `stores_logs`.
    """
    if user.only_write and not stores_logs:
        raise ForbiddenError("This token may only store logs.")
    if not user.level.includes(level):
        raise ForbiddenError(f"This needs the permission {level}; {user.username} has {user.level}.")

"""The permission levels, the user of a request, and the check of the user's permission, which every call makes."""

from dataclasses import dataclass
from enum import StrEnum

from factory_logs.errors import ForbiddenError


class Level(StrEnum):
    """The permission levels, lowest first. Each level includes the lower ones."""

    OVERVIEW = "OVERVIEW"
    TECHNICAL = "TECHNICAL"
    ADMIN = "ADMIN"
    FACTORY = "FACTORY"
    SYSTEM = "SYSTEM"

    def includes(self, other: "Level") -> bool:
        """Return whether this level allows everything that `other` allows."""
        return _RANK[self] >= _RANK[other]


_RANK = {level: rank for rank, level in enumerate(Level)}


@dataclass(frozen=True, slots=True)
class CurrentUser:
    """The user of a request. A user with an `only_write` token may only store logs."""

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

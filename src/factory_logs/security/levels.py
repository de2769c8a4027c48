"""The permission levels, lowest first (SPEC 3). The one place where they are listed."""

from enum import StrEnum


class Level(StrEnum):
    """What a user may do; each level includes those below it."""

    OVERVIEW = "OVERVIEW"
    TECHNICAL = "TECHNICAL"
    ADMIN = "ADMIN"
    FACTORY = "FACTORY"
    SYSTEM = "SYSTEM"

    def includes(self, other: "Level") -> bool:
        """Whether a user of this level may do what `other` may."""
        return _RANK[self] >= _RANK[other]


_RANK = {level: rank for rank, level in enumerate(Level)}

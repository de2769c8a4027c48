"""A repair: one stay of one unit in a repair centre (SPEC 2)."""

from enum import StrEnum


class Process(StrEnum):
    """What was done with the unit."""

    REPAIR_AND_RETURN = "Repair and Return"
    REPLACED = "Replaced"
    REPOSSESSED = "Repossessed"
    BROKEN_ON_ARRIVAL = "Broken on Arrival"

"""Measurements in the format of the calls for test results (docs/reference/test-results.md), and conversion of values
that cannot be stored as they are.

In a failed attempt, each false boolean counts as a failed measurement. So a boolean that is not a verdict is stored as
1 or 0.
"""

import math
from collections.abc import Mapping
from itertools import count
from typing import Any

from factory_logs.schemas.json_values import INT_MAX, INT_MIN

LONGEST_TEXT = 32 * 1024
PATH_SEPARATOR = "__"


def measurement(
    value: object,
    *,
    passed: bool | None = None,
    lower: object = None,
    upper: object = None,
    unit: str | None = None,
) -> dict[str, Any]:
    """Return a measurement with its verdict, limits and unit, as far as they are known. Limits must be numbers."""
    found: dict[str, Any] = {} if value is None else {"value": storable_value(value)}
    if passed is not None:
        found["pass"] = passed
    found |= {name: limit for name, limit in (("lower", lower), ("upper", upper)) if is_limit(limit)}
    if unit:
        found["unit"] = storable_text(unit)
    return found


def is_limit(value: object) -> bool:
    """Return whether the value is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def path_part(name: object) -> str:
    """Return a name as one part of a JSON path, without the separator of parts."""
    text = storable_text(str(name))
    while PATH_SEPARATOR in text:
        text = text.replace(PATH_SEPARATOR, "_")
    return text.strip("_") or "_"


def storable_value(value: object) -> Any:
    """Return a value that JSON can represent: booleans become 1 and 0, objects and other numbers become text."""
    if value is None or isinstance(value, str):
        return None if value is None else storable_text(value)
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int):
        return int(value) if INT_MIN <= value <= INT_MAX else storable_text(str(value))
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {storable_text(str(key)): storable_value(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [storable_value(item) for item in value]
    if type(value).__module__.partition(".")[0] == "numpy" and hasattr(value, "tolist"):
        return storable_value(value.tolist())
    return storable_text(value.hex() if isinstance(value, bytes) else str(value))


def storable_text(text: str) -> str:
    """Return the text with the characters escaped that PostgreSQL cannot store, so that they do not cause the loss of a
    log."""
    text = text[:LONGEST_TEXT].replace("\0", "\\0")
    return text.encode("utf-8", "backslashreplace").decode()


def add_named(members: dict[str, Any], name: object, value: object) -> None:
    """Add a member whose name is one part of a path. If the name is taken, add a number to it."""
    part = path_part(name)
    numbered = (f"{part}_{number}" for number in count(2))
    members[part if part not in members else next(text for text in numbered if text not in members)] = value

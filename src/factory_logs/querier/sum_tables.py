"""Tables of sums: add them, measure their size, and store them as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

Key = tuple[Any, ...]
"""The values that identify a row; see `Summed.as_key`."""
Numbers = tuple[Any, ...]
Table = Mapping[Key, Numbers]

ROW_BYTES = 120
"""The memory that a row uses in addition to the texts of its key."""


def add_numbers(
    table: dict[Key, Numbers],
    key: Key,
    numbers: Numbers,
    sign: int,
    least: frozenset[int] = frozenset(),
    greatest: frozenset[int] = frozenset(),
) -> None:
    """Add the numbers to the row with this key, or subtract them if the sign is -1."""
    before = table.get(key)
    if before is None:
        table[key] = numbers if sign > 0 else tuple(-number for number in numbers)
        return
    table[key] = merged_numbers(before, numbers, sign, least, greatest)


def merged_numbers(
    before: Numbers, numbers: Numbers, sign: int, least: frozenset[int], greatest: frozenset[int]
) -> Numbers:
    """Return the numbers of a row with other numbers added; they are subtracted if the sign is -1."""
    found = []
    for index, (old, new) in enumerate(zip(before, numbers, strict=True)):
        if old is None or new is None:
            found.append(new if old is None else old)
        elif index in least:
            found.append(min(old, new))
        elif index in greatest:
            found.append(max(old, new))
        else:
            found.append(old + sign * new)
    return tuple(found)


def sums_size(table: Table | None) -> int:
    """Return the approximate size of a table in bytes."""
    return sum(ROW_BYTES + sum(len(part) for part in key if not isinstance(part, int)) for key in table or ())


def encoded_rows(table: Table) -> list[Any]:
    """Return the rows for JSON. In a key, a JSON text becomes a string, and any other value a list that contains it."""
    return [
        [[part.decode() if isinstance(part, bytes) else [part] for part in key], numbers]
        for key, numbers in table.items()
    ]


def decoded_rows(rows: Iterable[Any]) -> dict[Key, Numbers]:
    """Return the table of the rows that `encoded_rows` returned."""
    return {
        tuple(part.encode() if isinstance(part, str) else part[0] for part in key): tuple(numbers)
        for key, numbers in rows
    }

"""Parse and format durations in the syntax of InfluxQL, such as `1h30m` and `500ms`. They are in nanoseconds."""

import re

from factory_logs.influxql.errors import ParseError

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE, HOUR, DAY, WEEK = 60 * SECOND, 3600 * SECOND, 86400 * SECOND, 7 * 86400 * SECOND

UNITS = {
    "w": WEEK, "d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND, "u": MICROSECOND, "µ": MICROSECOND,
    "ns": 1,
}  # fmt: skip
"""The units, from the longest to the shortest."""
_PART = re.compile("([0-9]+)(ns|ms|[uµmshdw])")
LONGEST = 2**63 - 1


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration. Raises ParseError."""
    total, position = 0, 0
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise ParseError("invalid duration")
        total += int(part[1][:20]) * UNITS[part[2]]
        if total > LONGEST:
            raise ParseError(f"overflowed duration {part[0]}: choose a smaller duration or INF")
        position = part.end()
    return total


def format_duration(nanoseconds: int) -> str:
    """Return a duration as text, in the longest unit that divides it evenly."""
    if nanoseconds == 0:
        return "0s"
    unit, length = next((unit, length) for unit, length in UNITS.items() if nanoseconds % length == 0)
    return f"{nanoseconds // length}{unit}"

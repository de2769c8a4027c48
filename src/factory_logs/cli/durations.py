"""Durations as people type them."""

import re
from datetime import UTC, datetime, timedelta

from factory_logs.cli.reporting import CommandError

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DURATION = re.compile(r"([0-9]+)([smhdw])")


def parse_duration(text: str) -> timedelta:
    """`90d` and the like, as long as calendars reach from now. Raises CommandError."""
    match = _DURATION.fullmatch(text)
    now = datetime.now(UTC)
    try:
        duration = timedelta(**{UNITS[match[2]]: int(match[1])}) if match else timedelta()
        now + duration, now - duration
    except (OverflowError, ValueError):
        raise CommandError(f"{text[:30]} is too long") from None
    if not duration:
        raise CommandError(f"{text[:30]!r} is no duration such as 30s, 15m, 12h, 90d, 2w")
    return duration

"""Parse durations that people write, such as 30s, 15m, 12h, 90d, 2w, and vary durations at random."""

import random
import re
from datetime import UTC, datetime, timedelta

from factory_logs.errors import BadRequestError

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_RANDOM = random.SystemRandom()
"""A separate generator, because other code may seed the generator of the random module."""
_DURATION = re.compile(r"([0-9]+)([smhdw])")


def parse_duration(text: str) -> timedelta:
    """Return the duration for a text such as `90d`. Raises BadRequestError if it is not a duration or is too long for
    dates."""
    match = _DURATION.fullmatch(text)
    now = datetime.now(UTC)
    try:
        duration = timedelta(**{UNITS[match[2]]: int(match[1])}) if match else timedelta()
        now + duration, now - duration
    except (OverflowError, ValueError):
        raise BadRequestError(f"{text[:30]} is too long") from None
    if not duration:
        raise BadRequestError(f"{text[:30]!r} is not a duration such as 30s, 15m, 12h, 90d, 2w")
    return duration


def vary(seconds: float) -> float:
    """Return a random duration between 0.5 and 1.5 times `seconds`, so that workers rarely act at the same time."""
    return seconds * _RANDOM.uniform(0.5, 1.5)

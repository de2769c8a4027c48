"""What time it is on the server, as the device's own clock may be wrong by years.

The server keeps an Idempotency-Key for 24 hours of its own time, so a batch's age must be measured by that.
"""

import time
from datetime import UTC
from email.utils import parsedate_to_datetime


class ServerClock:
    """Seconds since 1970 by the `Date` header of the newest answer, carried on by a clock that nobody sets."""

    def __init__(self) -> None:
        self._offset: float | None = None

    @property
    def known(self) -> bool:
        return self._offset is not None

    def observe(self, date: str | None) -> None:
        """Take note of an answer's `Date`. An answer without one says nothing, but for the first: better than none."""
        seconds = http_date(date)
        if seconds is not None:
            self._offset = seconds - _steady()
        elif self._offset is None:
            self._offset = time.time() - _steady()

    def now(self) -> float:
        """The server's time; the device's own as long as no answer has come."""
        return time.time() if self._offset is None else self._offset + _steady()


def http_date(text: str | None) -> float | None:
    """Seconds since 1970 of a date as HTTP headers have it; None for anything else."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError, IndexError):  # the last two by nonsense that the parser does not foresee
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds from a Retry-After header, which gives them or a date; None for anything else."""
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    date = http_date(text) if text else None
    return None if date is None else max(0.0, date - now)


def _steady() -> float:
    """Seconds that go on while the device sleeps, where the system can count those."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()

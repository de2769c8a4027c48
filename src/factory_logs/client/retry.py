"""Decide when to retry: backoff, Retry-After, and the server's clock, which determines the age of an Idempotency-Key.

The device's clock may be wrong by years, while the server stores a key for 24 hours by its own clock.
"""

import logging
import random
import sys
import time
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime

WARN_SECONDS = 300.0
"""A larger difference between the clocks causes a warning, because logs contain the device's time."""

_log = logging.getLogger(__name__)


class Backoff:
    """Computes waits that grow with each consecutive failure, with full jitter, so that many jigs do not retry at the
    same time.

    `base` and `cap` are in seconds; the settings of the client are in client/settings.py.
    """

    def __init__(self, base: float, cap: float, rng: random.Random | None = None) -> None:
        self._base = base
        self._cap = cap
        self._rng = rng or random.Random()  # noqa: S311 - nothing secret
        self._failures = 0

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, at_least: float | None = None) -> float:
        """Return the seconds to wait: `at_least`, plus a random part of a maximum that doubles each time."""
        longest = min(self._cap, self._base * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return (at_least or 0.0) + self._rng.uniform(0.0, longest)


class ServerClock:
    """Estimates the server's time from the `Date` header of the newest response and a steady clock.

    It warns once if the device's clock differs by more than WARN_SECONDS.
    """

    def __init__(self) -> None:
        self._offset: float | None = None
        self._has_warned = False

    @property
    def known(self) -> bool:
        return self._offset is not None

    def observe(self, date: str | None) -> None:
        """Take the time from a response's `Date` header. If the first response has none, take the device's time."""
        seconds = http_date(date)
        if seconds is not None:
            self._offset = seconds - _steady()
            self._compare(seconds - time.time())
        elif self._offset is None:
            self._offset = time.time() - _steady()

    def _compare(self, ahead: float) -> None:
        if self._has_warned or abs(ahead) <= WARN_SECONDS:
            return
        self._has_warned = True
        _log.warning(
            "This device's clock is %s %s the server's. Logs carry the device's time; set its clock, best by NTP.",
            timedelta(seconds=round(abs(ahead))), "behind" if ahead > 0 else "ahead of",
        )  # fmt: skip

    def now(self) -> float:
        """Return the server's time in seconds since 1970; the device's own before the first response."""
        return time.time() if self._offset is None else self._offset + _steady()


def _steady() -> float:
    """Return the seconds of a clock that is never set. On systems that have such a clock, it also counts during
    sleep."""
    if sys.platform != "win32" and hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


def http_date(text: str | None) -> float | None:
    """Return the seconds since 1970 of a date in the format of HTTP headers, or None for any other text."""
    try:
        moment = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError, IndexError):  # for unexpected text, the parser raises the last two errors
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()


def retry_after(header: str | None, now: float) -> float | None:
    """Return the seconds to wait according to a Retry-After header, which contains seconds or a date; None for any
    other text."""
    text = (header or "").strip()
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    date = http_date(text) if text else None
    return None if date is None else max(0.0, date - now)

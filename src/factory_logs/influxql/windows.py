"""Compute the windows of GROUP BY time(interval, offset), in the time zone of the query.

All times are in nanoseconds since 1970. In local time, windows begin at multiples of the interval.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from factory_logs.influxql.constants import EARLIEST, LATEST

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows with the length `interval`, shifted by `offset`. If the interval is 0, a single window contains all times
    from `first` to `last`."""

    first: int
    last: int
    interval: int = 0
    offset: int = 0
    zone: ZoneInfo | None = None

    def around(self, moment: int) -> tuple[int, int]:
        """Return the beginnings of the window that contains a time and of the next window."""
        if not self.interval:
            return self.first, self.last + 1
        local = moment - self.offset
        zone = self.zone_offset(local)
        elapsed = (local + zone) % self.interval
        begin = EARLIEST if EARLIEST + elapsed >= local else local - elapsed
        begin += self._shift(zone - self.zone_offset(begin)) + self.offset
        rest = self.interval - elapsed
        end = LATEST if LATEST - rest <= local else local + rest
        end += self._shift_of_end(zone, end) + self.offset
        return begin, end

    def start(self, moment: int) -> int:
        """Return the beginning of the window that contains a time."""
        return self.around(moment)[0]

    def zone_offset(self, moment: int) -> int:
        """Return the offset of local time from UTC, in nanoseconds."""
        if self.zone is None:
            return 0
        local = (_EPOCH + timedelta(seconds=moment // SECOND)).astimezone(self.zone)
        ahead = local.utcoffset()
        return 0 if ahead is None else int(ahead.total_seconds()) * SECOND

    def _shift(self, difference: int) -> int:
        """Return the shift of the clock, or 0 if it is at least as long as a window."""
        return difference if abs(difference) < self.interval else 0

    def _shift_of_end(self, zone: int, end: int) -> int:
        ahead = self.zone_offset(end)
        shift = self._shift(zone - ahead)
        if shift < 0 and self.zone_offset(end + shift) != ahead:
            return 0  # the skipped hour comes after this window
        return shift

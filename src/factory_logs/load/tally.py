"""The counts of a load test. They take memory that does not grow with its length."""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

SHORTEST_SECONDS = 1e-4
LONGEST_SECONDS = 600.0
STEP = 1.02
"""The ratio of neighbouring buckets, which makes percentiles exact to 2 %."""
_BUCKETS = math.ceil(math.log(LONGEST_SECONDS / SHORTEST_SECONDS, STEP)) + 1


class Latencies:
    """A histogram of seconds in buckets that grow by `STEP`. Values outside the buckets count in the nearest one."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0

    def add(self, seconds: float) -> None:
        place = math.ceil(math.log(max(seconds, SHORTEST_SECONDS) / SHORTEST_SECONDS, STEP))
        self._counts[min(place, _BUCKETS - 1)] += 1
        self.count += 1

    def merge(self, other: "Latencies") -> None:
        """Add the counts of another histogram."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self.count += other.count

    def percentile(self, share: float) -> float | None:
        """Return the seconds within which this share of the writes ended, at most 2 % too many, or None without
        values."""
        if not self.count:
            return None
        wanted = max(share * self.count, 1)
        place = next(place for place, seen in enumerate(accumulate(self._counts)) if seen >= wanted)
        return float(SHORTEST_SECONDS * STEP**place)


@dataclass(slots=True)
class Tally:
    """The outcome of the writes so far, counted in logs; `failures` and `requests` count requests."""

    stored: int = 0
    """Acknowledged with 201."""
    replayed: int = 0
    """The part of `stored` that an earlier request, whose response was lost, had already stored."""
    refused: int = 0
    """Refused with an error that a retry does not solve."""
    in_doubt: int = 0
    """Still without a response when the time for retries was over, so stored or not."""
    requests: int = 0
    """Requests that were sent, retries included."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests without a 201, by the way in which they ended."""
    latencies: Latencies = field(default_factory=Latencies)
    """The time of each write until its 201, including its retries and waits."""
    request_seconds: float = 0.0
    """The time of all requests, each from its beginning to the end of its response, as the devices see it."""
    retry_seconds: float = 0.0
    """The time that devices waited before retries."""
    processor_seconds: float = 0.0
    """The processor time of the load's processes."""


def merged(tallies: Iterable[Tally]) -> Tally:
    """Return the sum of tallies."""
    total = Tally()
    for tally in tallies:
        total.stored += tally.stored
        total.replayed += tally.replayed
        total.refused += tally.refused
        total.in_doubt += tally.in_doubt
        total.requests += tally.requests
        total.failures.update(tally.failures)
        total.latencies.merge(tally.latencies)
        total.request_seconds += tally.request_seconds
        total.retry_seconds += tally.retry_seconds
        total.processor_seconds += tally.processor_seconds
    return total

"""The counts and latencies of a load test. Their memory does not grow with the length of the test."""

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
        bucket = math.ceil(math.log(max(seconds, SHORTEST_SECONDS) / SHORTEST_SECONDS, STEP))
        self._counts[min(bucket, _BUCKETS - 1)] += 1
        self.count += 1

    def merge(self, other: "Latencies") -> None:
        """Add the counts of another histogram."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self.count += other.count

    def percentile(self, share: float) -> float | None:
        """Return the seconds within which this share of the writes ended, or None without values.

        The result is at most 2 % too large.
        """
        if not self.count:
            return None
        wanted = max(share * self.count, 1)
        bucket = next(bucket for bucket, seen in enumerate(accumulate(self._counts)) if seen >= wanted)
        return float(SHORTEST_SECONDS * STEP**bucket)


@dataclass(slots=True)
class LoadCounts:
    """The results of the writes so far. `requests` and `failures` count requests, the other counts are logs."""

    stored: int = 0
    """Acknowledged with 201."""
    replayed: int = 0
    """The part of `stored` that an earlier request, whose response was lost, had already stored."""
    refused: int = 0
    """Refused with an error that a retry does not solve."""
    in_doubt: int = 0
    """Without a response at the end of the time for retries, so they may be stored or not."""
    requests: int = 0
    """Requests that were sent, retries included."""
    failures: Counter[str] = field(default_factory=Counter)
    """The number of requests without a 201, by their error."""
    latencies: Latencies = field(default_factory=Latencies)
    """The time of each write until its 201, including its retries and waits."""
    request_seconds: float = 0.0
    """The time of all requests, each from its beginning to the end of its response, as the devices see it."""
    retry_seconds: float = 0.0
    """The time that devices waited before retries."""
    processor_seconds: float = 0.0
    """The processor time of the load's processes."""


def merged(parts: Iterable[LoadCounts]) -> LoadCounts:
    """Return the sum of the counts of several processes."""
    total = LoadCounts()
    for part in parts:
        total.stored += part.stored
        total.replayed += part.replayed
        total.refused += part.refused
        total.in_doubt += part.in_doubt
        total.requests += part.requests
        total.failures.update(part.failures)
        total.latencies.merge(part.latencies)
        total.request_seconds += part.request_seconds
        total.retry_seconds += part.retry_seconds
        total.processor_seconds += part.processor_seconds
    return total

"""What a load test counts, in memory that does not grow with its length."""

import math
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate

SHORTEST_SECONDS = 1e-4
LONGEST_SECONDS = 600.0
STEP = 1.02
"""Neighbouring buckets differ by 2 %, which is how exact a percentile is."""
_BUCKETS = math.ceil(math.log(LONGEST_SECONDS / SHORTEST_SECONDS, STEP)) + 1


class Latencies:
    """A histogram of seconds in buckets that grow by `STEP`; what is outside its ends counts as at them."""

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self.count = 0

    def add(self, seconds: float) -> None:
        place = math.ceil(math.log(max(seconds, SHORTEST_SECONDS) / SHORTEST_SECONDS, STEP))
        self._counts[min(place, _BUCKETS - 1)] += 1
        self.count += 1

    def percentile(self, share: float) -> float | None:
        """The seconds within which this share of all was done, at most 2 % too many; None where there is none yet."""
        if not self.count:
            return None
        wanted = max(share * self.count, 1)
        place = next(place for place, seen in enumerate(accumulate(self._counts)) if seen >= wanted)
        return float(SHORTEST_SECONDS * STEP**place)


@dataclass(slots=True)
class Tally:
    """What became of the writes so far. Numbers are of logs, but for `failures`, which is of requests."""

    stored: int = 0
    """Answered with 201."""
    replayed: int = 0
    """Of these: the answer was to an earlier request that had seemed to fail."""
    refused: int = 0
    """Answered with an error that trying again does not cure."""
    in_doubt: int = 0
    """Still without an answer when the time for trying again was over: stored or not."""
    failures: Counter[str] = field(default_factory=Counter)
    """Requests that did not end in 201, by what they ended in."""
    latencies: Latencies = field(default_factory=Latencies)
    """Of each write until its 201, all its tries and waits included."""

"""How long to wait after a failure: full jitter, so that a hall of jigs does not come back as one."""

import random


class Backoff:
    """Waits that grow with each failure in a row. `base` and `cap` are in seconds."""

    def __init__(self, base: float, cap: float, rng: random.Random | None = None) -> None:
        self._base = base
        self._cap = cap
        self._rng = rng or random.Random()  # noqa: S311 - nothing secret
        self._failures = 0

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, at_least: float | None = None) -> float:
        """Seconds to wait now: anything between nothing and twice as much as last time, after what was asked for."""
        longest = min(self._cap, self._base * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return (at_least or 0.0) + self._rng.uniform(0.0, longest)

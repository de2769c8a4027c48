"""Read the number of processors and how busy they are."""

import os
from dataclasses import dataclass
from pathlib import Path

_STAT = Path("/proc/stat")


def usable_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class ProcessorTimes:
    """The times of all processors since the start of the machine, in ticks."""

    busy: int
    total: int

    def busy_share(self, later: "ProcessorTimes") -> float | None:
        """Return the busy part of the time until `later`, or None if no tick has passed."""
        total = later.total - self.total
        return (later.busy - self.busy) / total if total > 0 else None


def processor_times() -> ProcessorTimes | None:
    """Return the times of this machine, or None if the system has no /proc/stat."""
    try:
        with _STAT.open() as file:
            ticks = [int(number) for number in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    if len(ticks) < 5:
        return None
    _, _, _, idle, waiting, *_ = ticks
    return ProcessorTimes(sum(ticks) - idle - waiting, sum(ticks))

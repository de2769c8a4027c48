"""The processes of a load test: one Python process cannot use more than one core."""

import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import Any

from factory_logs.load.devices import DeviceGroup, Load, LoadError
from factory_logs.load.statistics import LoadCounts, merged

REPORT_SECONDS = 0.5
END_SECONDS = 5.0
Pipe = Any
"""One end of a pipe, which has another class on Windows."""
_CONTEXT = get_context("spawn")  # not fork, because the command may have threads


@dataclass(frozen=True, slots=True)
class Report:
    """The counts of a process. They are final if `is_last` is true. `error` is the reason if the process ended
    early."""

    counts: LoadCounts
    is_last: bool = False
    error: str | None = None


def run_load(load: Load, processes: int, show: Callable[[LoadCounts, float], None]) -> tuple[LoadCounts, float]:
    """Run all devices in this number of processes until the duration is over, and until each write has a response or
    its time for retries is over.

    `show` gets the counts so far and the seconds since the start, about twice a second. Return the counts and the
    seconds. Raises LoadError.
    """
    running: dict[Pipe, LoadCounts] = {}
    children = []
    try:
        for number in range(processes):
            here, there = _CONTEXT.Pipe()
            child = _CONTEXT.Process(
                target=_run_group, args=(load, range(number, load.devices, processes), there), daemon=True
            )
            child.start()
            there.close()
            children.append(child)
            running[here] = LoadCounts()
        for pipe in running:
            _received(pipe)  # wait until the process has imported its modules
        for pipe in running:
            pipe.send(None)
        started = time.monotonic()
        _follow(running, lambda counts: show(counts, time.monotonic() - started))
        return merged(running.values()), time.monotonic() - started
    finally:
        for pipe in running:
            pipe.close()  # closing the pipe ends a process that is still running
        for child in children:
            child.join(END_SECONDS)
            if child.is_alive():
                child.terminate()


def _follow(running: dict[Pipe, LoadCounts], show: Callable[[LoadCounts], None]) -> None:
    """Receive the reports of all processes until each has sent its last one. Raises LoadError."""
    unfinished = set(running)
    shown_at = time.monotonic()
    while unfinished:
        for pipe in wait(list(unfinished), REPORT_SECONDS):
            report = _received(pipe)
            running[pipe] = report.counts
            if report.is_last:
                unfinished.remove(pipe)
        if time.monotonic() - shown_at >= REPORT_SECONDS:
            shown_at = time.monotonic()
            show(merged(running.values()))


def _received(pipe: Pipe) -> Report:
    """Return the next report of a process. Raises LoadError."""
    try:
        report: Report = pipe.recv()
    except EOFError:
        raise LoadError("a process of the load test has ended too early") from None
    if report.error is not None:
        raise LoadError(report.error)
    return report


def _run_group(load: Load, numbers: range, pipe: Pipe) -> None:
    """Run the devices of one process. Report once, wait for the start, and report until all devices have ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the command ends them
    try:
        group = DeviceGroup(load, numbers)
        pipe.send(Report(LoadCounts()))
        pipe.recv()
        group.start()
        while not group.wait(REPORT_SECONDS):
            pipe.send(Report(group.counts()))
        pipe.send(Report(group.counts(), is_last=True))
    except LoadError as error:
        with suppress(BrokenPipeError):  # another process has failed first, and the command has ended
            pipe.send(Report(LoadCounts(), is_last=True, error=str(error)))
    except (EOFError, BrokenPipeError):
        pass  # the command has ended

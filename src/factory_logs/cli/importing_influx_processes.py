"""The processes that store the parts of an import side by side."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from itertools import islice
from multiprocessing import forkserver, get_context

from factory_logs.cli.importing_influx_part import PartJob, PartOutcome, store_part_of

# Not fork, as the command holds locks and may have threads.
_CONTEXT = get_context("forkserver")


def cores() -> int:
    """Those this process may use, where the system tells."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def load_ahead() -> None:
    """Let what the processes need be loaded now, beside other work, and once for all of them."""
    _CONTEXT.set_forkserver_preload([store_part_of.__module__])
    forkserver.ensure_running()


async def outcomes(jobs: Sequence[PartJob], processes: int) -> AsyncIterator[PartOutcome]:
    """The parts as they are done, by several processes where there is more than one part.

    Where it is cut off, parts that were begun are still stored.
    """
    count = min(processes, len(jobs))
    if count <= 1:
        for job in jobs:
            yield await store_part_of(job)
        return
    async with _pool(count) as pool:
        loop = asyncio.get_running_loop()
        waiting = iter(jobs)
        running = {loop.run_in_executor(pool, _in_process, job) for job in islice(waiting, 2 * count)}
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                yield ended.result()
                for job in islice(waiting, 1):
                    running.add(loop.run_in_executor(pool, _in_process, job))


@asynccontextmanager
async def _pool(count: int) -> AsyncIterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(count, _CONTEXT, _leave_interrupts_to_the_command)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_command() -> None:
    """Ctrl-C reaches all processes of a terminal."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _in_process(job: PartJob) -> PartOutcome:
    return asyncio.run(store_part_of(job))

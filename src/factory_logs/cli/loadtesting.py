"""What `loadtest` does: run the load, show it as it goes, and hold what was answered against what is stored."""

import asyncio
import io
import time
from collections import deque
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from factory_logs.cli.reporting import CommandError, is_terminal
from factory_logs.load.devices import Load, LoadError, count_stored, run_load
from factory_logs.load.tally import Tally

REFRESH_SECONDS = 0.5
RATE_SAMPLES = 10
PICTURE_COLUMNS = 72


def run(load: Load, svg: Path | None) -> bool:
    """Whether every log was answered with 201 and is stored once. Raises CommandError where nothing can be said."""
    tally = Tally()
    try:
        elapsed, stored = asyncio.run(_run(load, tally))
    except LoadError as error:
        raise CommandError(str(error)) from None
    kept = not tally.refused and not tally.in_doubt and stored == tally.stored
    table = _table(load, tally, elapsed, tally.stored / elapsed)
    table.add_row("stored, by the service", f"{stored:,}", style="bold green" if kept else "bold red")
    Console().print(table)
    if svg is not None:
        _picture(table, svg)
    return kept


async def _run(load: Load, tally: Tally) -> tuple[float, int]:
    """How long the writes took, in seconds, and how many logs the service says it has of them."""
    async with load.client() as http:
        started = time.monotonic()
        watching = asyncio.create_task(_watch(load, tally, started))
        try:
            await run_load(load, http, tally)
        finally:
            elapsed = time.monotonic() - started
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        return elapsed, await count_stored(load, http)


async def _watch(load: Load, tally: Tally, started: float) -> None:
    """The live table, for as long as somebody may be looking."""
    if not is_terminal():
        return
    samples = deque([(started, 0)], maxlen=RATE_SAMPLES)
    with Live(console=Console(stderr=True), auto_refresh=False, transient=True) as live:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            now = time.monotonic()
            since, before = samples[0]
            samples.append((now, tally.stored))
            rate = (tally.stored - before) / (now - since)
            live.update(_table(load, tally, now - started, rate), refresh=True)


def _table(load: Load, tally: Tally, elapsed: float, rate: float) -> Table:
    what = "one log" if load.batch == 1 else f"{load.batch:,} logs"
    table = Table(title=f"{load.devices} devices, {what} a request, {elapsed:.0f} s of {load.duration_seconds:.0f} s")
    table.add_column("app_name")
    table.add_column(load.run, justify="right")
    table.add_row("logs a second", f"{rate:,.0f}")
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        table.add_row(f"{name} of a write", _milliseconds(tally.latencies.percentile(share)))
    for kind, count in sorted(tally.failures.items()):
        table.add_row(f"tried in vain: {kind}", f"{count:,}", style="yellow")
    for name, logs in (("refused", tally.refused), ("in doubt", tally.in_doubt)):
        if logs:
            table.add_row(name, f"{logs:,}", style="red")
    if tally.replayed:
        table.add_row("answered again", f"{tally.replayed:,}")
    table.add_row("answered with 201", f"{tally.stored:,}")
    return table


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:,.1f} ms"


def _picture(table: Table, file: Path) -> None:
    console = Console(record=True, file=io.StringIO(), width=PICTURE_COLUMNS, force_terminal=True)
    console.print(table)
    try:
        file.write_text(console.export_svg(title="factory-logs loadtest"))
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from None

"""`factory-logs loadtest`: measure how many logs a service stores, and check that it has stored them all.

It also runs on a device, because it does not need the server's packages.
"""

import io
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table

from factory_logs.cli.device.options import CaFile, Token, TokenFile, Url, fixed_token
from factory_logs.cli.output import CommandError, is_terminal, reporting_errors
from factory_logs.device_environment import DEFAULT_URL
from factory_logs.durations import parse_duration
from factory_logs.processors import processor_times, usable_cores

if TYPE_CHECKING:
    from factory_logs.load.devices import Load
    from factory_logs.load.limit import Measured
    from factory_logs.load.statistics import LoadCounts

RATE_SAMPLES = 10
PICTURE_COLUMNS = 100


def loadtest(
    devices: Annotated[int, typer.Option(help="The number of devices that write at once.", min=1, max=10_000)] = 50,
    duration: Annotated[str, typer.Option(help="How long the devices write, such as 30s or 5m.")] = "60s",
    batch: Annotated[
        int, typer.Option(help="The number of logs in one request; more than 1 are sent as a JSON array.", min=1)
    ] = 1,
    grace: Annotated[
        str, typer.Option(help="How long after the duration writes without a response are retried.")
    ] = "30s",
    processes: Annotated[
        int | None,
        typer.Option(
            help="The number of processes among which the devices are divided.", min=1, show_default="one for each core"
        ),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(help="Also write the last table to this SVG file.", dir_okay=False)
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
) -> None:
    """Write as many logs as a running service accepts, check that it has stored all of them, and show what limits the
    rate.

    The logs stay in the database, under a unique app_name. The exit code is 1 if a log was refused, got no response, is
    missing or is stored twice.
    """
    with reporting_errors():
        from factory_logs.client.settings import checked_url
        from factory_logs.load.devices import Load, LoadError

        writing, retrying = (parse_duration(text).total_seconds() for text in (duration, grace))
        given = fixed_token(token, token_file)
        try:
            load = Load(checked_url(url), given, devices, batch, writing, retrying, ca_file)
            is_complete = _run(load, min(processes or usable_cores(), devices), svg)
        except (LoadError, ValueError) as error:
            raise CommandError(str(error)) from None
        if not is_complete:
            raise typer.Exit(1)


def _run(load: "Load", processes: int, svg: Path | None) -> bool:
    """Run the load and print its table. Return whether every log got a 201 and is stored once.

    Raises LoadError, after the table if only the number of stored logs is unknown; ValueError for a CA file that cannot
    be used.
    """
    from factory_logs.load.devices import LoadError, count_stored
    from factory_logs.load.limit import Measured, service_times
    from factory_logs.load.processes import run_load

    with load.client() as http:
        service_before, machine_before = service_times(http), processor_times()
        with _Progress(load) as progress:
            counts, elapsed = run_load(load, processes, progress.show)
        service_after, machine_after = service_times(http), processor_times()
        stored, unknown = None, None
        try:
            stored = count_stored(load, http)
        except LoadError as error:
            unknown = error
    measured = Measured(
        counts, elapsed, load.devices, processes, usable_cores(),
        machine_before.busy_share(machine_after) if machine_before and machine_after else None,
        service_before.mean_until(service_after) if service_before and service_after else None,
    )  # fmt: skip
    is_complete = not counts.refused and not counts.in_doubt and stored == counts.stored
    table = _table(load, counts, elapsed, counts.stored / elapsed)
    by_service = "unknown" if stored is None else f"{stored:,}"
    table.add_row("stored, by the service", by_service, style="bold green" if is_complete else "bold red")
    _add_limit(table, measured)
    Console().print(table)
    if svg is not None:
        _write_picture(table, svg)
    if unknown is not None:
        raise unknown
    return is_complete


class _Progress:
    """Shows the table and keeps it up to date, if stderr is a terminal."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._samples = deque([(0.0, 0)], maxlen=RATE_SAMPLES)
        console = Console(stderr=True)
        self._live = Live(console=console, auto_refresh=False, transient=True) if is_terminal() else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, counts: "LoadCounts", elapsed: float) -> None:
        """Show the counts so far. The rate is that of the last few seconds."""
        if self._live is None:
            return
        since, before = self._samples[0]
        self._samples.append((elapsed, counts.stored))
        self._live.update(
            _table(self._load, counts, elapsed, (counts.stored - before) / (elapsed - since)), refresh=True
        )


def _table(load: "Load", counts: "LoadCounts", elapsed: float, rate: float) -> Table:
    size = "one log" if load.batch == 1 else f"{load.batch:,} logs"
    table = Table(title=f"{load.devices} devices, {size} a request, {elapsed:.0f} s of {load.duration_seconds:.0f} s")
    table.add_column("app_name")
    table.add_column(load.run, justify="right")
    table.add_row("logs a second", f"{rate:,.0f}")
    for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
        table.add_row(f"{name} of a write", _milliseconds(counts.latencies.percentile(share)))
    for kind, count in sorted(counts.failures.items()):
        table.add_row(f"failed requests: {kind}", f"{count:,}", style="yellow")
    for name, logs in (("refused", counts.refused), ("in doubt", counts.in_doubt)):
        if logs:
            table.add_row(name, f"{logs:,}", style="red")
    if counts.replayed:
        table.add_row("replayed", f"{counts.replayed:,}")
    table.add_row("acknowledged (201)", f"{counts.stored:,}")
    return table


def _add_limit(table: Table, measured: "Measured") -> None:
    from factory_logs.load.limit import limit

    processes = "1 process" if measured.processes == 1 else f"{measured.processes} processes"
    table.add_section()
    table.add_row("processors used by loadtest", f"{measured.own_cores:.2f} of {measured.cores} in {processes}")
    if measured.machine_busy is not None:
        table.add_row("processors used by all programs", f"{measured.machine_busy * measured.cores:.2f}")
    table.add_row("mean of a request, by the devices", _milliseconds(measured.request_seconds))
    table.add_row("mean of a write, by the service", _milliseconds(measured.service_seconds))
    table.add_row("limit", limit(measured), style="bold")


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:,.1f} ms"


def _write_picture(table: Table, file: Path) -> None:
    console = Console(record=True, file=io.StringIO(), width=PICTURE_COLUMNS, force_terminal=True)
    console.print(table)
    try:
        file.write_text(console.export_svg(title="factory-logs loadtest"))
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from None

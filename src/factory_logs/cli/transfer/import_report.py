"""The output of `factory-logs import` for one file: a progress bar, the first bad records, and a summary."""

from collections.abc import Sequence
from dataclasses import dataclass

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from factory_logs.cli.output import is_terminal, print_message
from factory_logs.cli.transfer.rejected_file import Rejection

GOES_ON = "Run the command again: it continues where it stopped"
DISK_NEARLY_FULL = (
    "The disk of the database is nearly full; FACTORY_LOGS_DISK_RESERVE_BYTES of it stay free. Free some space "
    "(docs/how-to/operating.md#a-disk-that-is-nearly-full)."
)
SHOWN_REJECTIONS = 20
"""The maximum number of bad records shown on stderr. The file of `--rejected` contains all of them."""


@dataclass(slots=True)
class ImportReport:
    """The counts for one file. `noun` is the word for stored records, and `unit` for rejected ones."""

    name: str
    noun: str
    unit: str
    stored: int = 0
    rejected: int = 0
    stored_before: int = 0
    rejected_before: int = 0
    _shown: int = 0

    def add(self, stored: int, rejections: Sequence[Rejection]) -> None:
        """Count the records of a part, and show the first bad records on stderr."""
        for rejection in rejections[: max(0, SHOWN_REJECTIONS - self._shown)]:
            for error in rejection.errors:
                print_message(f"{self.name}:{rejection.number}: {error}")
            self._shown += 1
        self.stored += stored
        self.rejected += len(rejections)

    def finish(self, *, all_are_listed: bool) -> None:
        """Print the summary on stdout. `all_are_listed` is true if a file lists all bad records."""
        if self.rejected > self._shown and not all_are_listed:
            print_message(f"{self.name}: {self.rejected - self._shown} more; --rejected FILE lists all")
        rejected = f", rejected {self.rejected}{self.unit}" if self.rejected else ""
        typer.echo(f"Imported {self.stored} {self.noun} from {self.name}{rejected}{self._before()}")

    def stored_in_all(self) -> str:
        """Return a clause that says how many records of the file are stored."""
        return f"{self.stored_before + self.stored} {self.noun} of {self.name} are stored"

    def _before(self) -> str:
        if not self.stored_before and not self.rejected_before:
            return ""
        rejected = f" and {self.rejected_before}{self.unit} rejected" if self.rejected_before else ""
        return f"; {self.stored_before} were imported before{rejected}"


class ImportProgress:
    """Shows a progress bar for each step of an import if stderr is a terminal."""

    def __init__(self) -> None:
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[stored]:,} stored {task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True, highlight=False, markup=False, soft_wrap=True),
            disable=not is_terminal(),
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> "ImportProgress":
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def begin(self, step: str, total: int) -> None:
        """Show the next step, of `total` bytes or records."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._task = self._bars.add_task(step, total=total, stored=0, rate="")

    def update(self, completed: int, stored: int = 0) -> None:
        """Show the progress of the step, and the number of records that this run has stored."""
        if self._task is None:
            return
        elapsed = max(self._bars.tasks[-1].elapsed or 0.0, 0.001)
        rate = f"{stored / elapsed:,.0f}/s" if stored else ""
        self._bars.update(self._task, completed=completed, stored=stored, rate=rate)

"""What the `spool` commands do."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import orjson
import typer
from rich.console import Console
from rich.table import Table

from factory_logs.cli.reporting import CommandError, tell
from factory_logs.client.spool import RejectedLog, Spool
from factory_logs.schemas.timestamps import format_timestamp


def run_show(folder: Path, limit: int, as_json: bool) -> None:
    """Raises CommandError where there is no spool, SpoolError."""
    spool = _existing(folder)
    totals = spool.totals()
    rejected = spool.rejected(limit)
    if as_json:
        for log in rejected:
            typer.echo(orjson.dumps(_as_json(log)).decode())
        return
    typer.echo(
        f"{totals.pending} logs wait ({totals.pending_bytes} bytes), {totals.rejected} are rejected, "
        f"{totals.delivered} were delivered, {totals.dropped} dropped"
    )
    damaged = sorted(path.name for path in folder.glob("*.damaged"))
    if damaged:
        typer.echo(f"damaged spools were set aside: {', '.join(damaged)}")
    if rejected:
        Console().print(_table(rejected))
    if totals.rejected > len(rejected):
        typer.echo(f"... and {totals.rejected - len(rejected)} more; --limit shows more")


def _table(rejected: Sequence[RejectedLog]) -> Table:
    table = Table("number", "rejected at (UTC)", "reason", "log")
    for log in rejected:
        at = format_timestamp(datetime.fromtimestamp(log.rejected_at, UTC).replace(tzinfo=None, microsecond=0))
        table.add_row(str(log.number), at, _text(log.reason), _text(log.line.decode("utf-8", "backslashreplace")))
    return table


def _text(text: str) -> str:
    """As it is, not as rich's markup, and without what a terminal would obey."""
    visible = "".join(character if character.isprintable() else repr(character)[1:-1] for character in text[:1000])
    return visible.replace("[", r"\[")


def _as_json(log: RejectedLog) -> dict[str, object]:
    at = format_timestamp(datetime.fromtimestamp(log.rejected_at, UTC).replace(tzinfo=None))
    return {
        "number": log.number,
        "rejected_at": at,
        "reason": log.reason,
        "line": log.line.decode("utf-8", "backslashreplace"),
    }


def run_retry(folder: Path, numbers: list[int] | None, all_: bool) -> None:
    """Raises CommandError, SpoolError."""
    tell(f"{_chosen(_existing(folder).retry, numbers, all_)} logs will be sent again")


def run_drop(folder: Path, numbers: list[int] | None, all_: bool) -> None:
    """Raises CommandError, SpoolError."""
    tell(f"Dropped {_chosen(_existing(folder).drop, numbers, all_)} logs")


def _chosen(work: Callable[[Iterable[int] | None], int], numbers: list[int] | None, all_: bool) -> int:
    if bool(numbers) == all_:
        raise CommandError("give either numbers of rejected logs or --all")
    count = work(None if all_ else numbers)
    if not count:
        raise CommandError("there are no such rejected logs")
    return count


def _existing(folder: Path) -> Spool:
    if not any(folder.glob("spool-*.sqlite3")):
        raise CommandError(f"there is no spool in {folder}")
    return Spool(folder)

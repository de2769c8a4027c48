"""`factory-logs spool`: show which logs wait on this device and why, and manage rejected logs."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import orjson
import typer
from rich.console import Console
from rich.table import Table

from factory_logs import device_environment
from factory_logs.cli.commands import Commands
from factory_logs.cli.device.options import SpoolFolder
from factory_logs.cli.output import CommandError, counted, print_message, reporting_errors, visible
from factory_logs.device_environment import DEFAULT_SPOOL

if TYPE_CHECKING:
    from factory_logs.client import RejectedLog, SpoolTotals
    from factory_logs.client.spool import Spool
    from factory_logs.client.spool_view import SpoolView

app = Commands(help="Show and manage the undelivered logs on this device.", no_args_is_help=True)

LONGEST_CELL = 1000
Numbers = Annotated[list[int] | None, typer.Argument(help="The numbers of rejected logs in `show`.")]
All = Annotated[bool, typer.Option("--all", help="All rejected logs.")]


@app.command()
def show(
    limit: Annotated[int, typer.Option(help="The maximum number of listed rejected logs.", min=0)] = 20,
    json: Annotated[
        bool, typer.Option("--json", help="Print the rejected logs as NDJSON, for other programs.")
    ] = False,
    spool: SpoolFolder = DEFAULT_SPOOL,
) -> None:
    """Show how many logs wait and why, and the rejected logs with the server's error. The command changes nothing."""
    with reporting_errors():
        from factory_logs.client.spool_view import SpoolView

        view = SpoolView(_existing_folder(spool))
        rejected = view.rejected(limit)
        if json:
            for log in rejected:
                typer.echo(orjson.dumps(_as_json(log)).decode())
        else:
            _print(view, rejected)


@app.command()
def retry(numbers: Numbers = None, all_: All = False, spool: SpoolFolder = DEFAULT_SPOOL) -> None:
    """Send rejected logs again, after the cause is fixed. The next client that uses the spool sends them."""
    with reporting_errors():
        print_message(f"{counted(_chosen(_existing(spool).retry, numbers, all_), 'log')} will be sent again")


@app.command()
def drop(numbers: Numbers = None, all_: All = False, spool: SpoolFolder = DEFAULT_SPOOL) -> None:
    """Delete rejected logs permanently."""
    with reporting_errors():
        print_message(f"Dropped {counted(_chosen(_existing(spool).drop, numbers, all_), 'log')}")


def _print(view: "SpoolView", rejected: Sequence["RejectedLog"]) -> None:
    totals = view.totals()
    typer.echo(_counts(totals))
    if totals.pending:
        for reason in _reasons(view):
            typer.echo(reason)
    if damaged := view.damaged():
        typer.echo(f"damaged spools were set aside: {', '.join(damaged)}")
    if rejected:
        Console().print(_table(rejected))
    if totals.rejected > len(rejected):
        typer.echo(f"... and {totals.rejected - len(rejected)} more; --limit shows more")


def _counts(totals: "SpoolTotals") -> str:
    return (
        f"{counted(totals.pending, 'log')} {_verb(totals.pending, 'waits', 'wait')} ({totals.pending_bytes} bytes), "
        f"{totals.rejected} {_verb(totals.rejected, 'is', 'are')} rejected, "
        f"{totals.delivered} {_verb(totals.delivered, 'was', 'were')} delivered, {totals.dropped} dropped"
    )


def _verb(count: int, one: str, many: str) -> str:
    return one if count == 1 else many


def _reasons(view: "SpoolView") -> Iterator[str]:
    """Yield the reasons why logs are waiting."""
    if trouble := view.trouble():
        yield f"waiting since {_utc(trouble.since)} UTC: {visible(trouble.message)}"
    if not view.is_sent_from():
        yield "no process sends them now; the next client or command that uses this spool does"


def _table(rejected: Sequence["RejectedLog"]) -> Table:
    table = Table("number", "rejected at (UTC)", "reason", "log")
    for log in rejected:
        table.add_row(str(log.number), _utc(log.rejected_at), _cell(log.reason), _cell(_text(log.line)))
    return table


def _utc(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _text(line: bytes) -> str:
    return line.decode("utf-8", "backslashreplace")


def _cell(text: str) -> str:
    """Return the text unchanged, not as rich's markup."""
    return visible(text[:LONGEST_CELL]).replace("[", r"\[")


def _as_json(log: "RejectedLog") -> dict[str, object]:
    at = str(datetime.fromtimestamp(log.rejected_at, UTC).replace(tzinfo=None))
    return {"number": log.number, "rejected_at": at, "reason": log.reason, "line": _text(log.line)}


def _chosen(work: Callable[[Iterable[int] | None], int], numbers: list[int] | None, all_: bool) -> int:
    if bool(numbers) == all_:
        raise CommandError("give either numbers of rejected logs or --all")
    count = work(None if all_ else numbers)
    if not count:
        raise CommandError("there are no such rejected logs")
    return count


def _existing(folder: Path) -> "Spool":
    from factory_logs.client.spool import Spool

    return Spool(_existing_folder(folder))


def _existing_folder(folder: Path) -> Path:
    """Return the folder of the spool. Raises CommandError if it contains no spool."""
    from factory_logs.client.spool_file import has_spool

    folder = folder.expanduser()
    if not has_spool(folder):
        raise CommandError(
            f"there is no spool in {folder}; --spool or {device_environment.SPOOL} names the folder of the client"
        )
    return folder

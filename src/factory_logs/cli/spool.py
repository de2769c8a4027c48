"""`factory-logs spool`: what waits on this device, and what the server would not take."""

from typing import Annotated

import typer

from factory_logs.cli.device_options import DEFAULT_SPOOL, SpoolFolder
from factory_logs.cli.reporting import reporting_errors

app = typer.Typer(help="Logs on this device that are not delivered.", no_args_is_help=True)

Numbers = Annotated[list[int] | None, typer.Argument(help="Rejected logs, by the number that `show` gives.")]
All = Annotated[bool, typer.Option("--all", help="All rejected logs.")]


@app.command()
def show(
    limit: Annotated[int, typer.Option(help="How many rejected logs are listed.", min=0)] = 20,
    json: Annotated[bool, typer.Option("--json", help="As NDJSON, for other programs.")] = False,
    spool: SpoolFolder = DEFAULT_SPOOL,
) -> None:
    """How many logs wait, and the rejected ones with the server's error."""
    with reporting_errors():
        from factory_logs.cli.spooling import run_show

        run_show(spool.expanduser(), limit, json)


@app.command()
def retry(numbers: Numbers = None, all_: All = False, spool: SpoolFolder = DEFAULT_SPOOL) -> None:
    """Send rejected logs again, once the cause is mended; the next client that uses the spool does it."""
    with reporting_errors():
        from factory_logs.cli.spooling import run_retry

        run_retry(spool.expanduser(), numbers, all_)


@app.command()
def drop(numbers: Numbers = None, all_: All = False, spool: SpoolFolder = DEFAULT_SPOOL) -> None:
    """Delete rejected logs for good."""
    with reporting_errors():
        from factory_logs.cli.spooling import run_drop

        run_drop(spool.expanduser(), numbers, all_)

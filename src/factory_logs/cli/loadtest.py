"""`factory-logs loadtest`: what a service takes, and whether it keeps it. It needs no server installed."""

from pathlib import Path
from typing import Annotated

import typer

from factory_logs.cli.device_options import DEFAULT_URL, Token, Url
from factory_logs.cli.reporting import CommandError, reporting_errors


def loadtest(
    devices: Annotated[int, typer.Option(help="How many devices write at once.", min=1, max=10_000)] = 50,
    duration: Annotated[str, typer.Option(help="How long they write, such as 30s or 5m.")] = "60s",
    batch: Annotated[int, typer.Option(help="Logs in one request; more than 1 are a JSON array.", min=1)] = 1,
    grace: Annotated[
        str, typer.Option(help="How long after that a write without an answer is still tried again.")
    ] = "30s",
    svg: Annotated[Path | None, typer.Option(help="Keep the last table as a picture too.", dir_okay=False)] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Write as many logs as a running service takes, then ask it whether it has them all.

    The logs stay in the database; they have an app_name of their own. The exit code is 1 where one was refused, was
    left without an answer, is missing or is stored twice.
    """
    with reporting_errors():
        from factory_logs.cli.durations import parse_duration
        from factory_logs.cli.loadtesting import run
        from factory_logs.load.devices import Load

        if not token:
            raise CommandError("a token is needed: --token, or FACTORY_LOGS_TOKEN in the environment")
        writing, trying_again = (parse_duration(text).total_seconds() for text in (duration, grace))
        if not run(Load(url, token, devices, batch, writing, trying_again), svg):
            raise typer.Exit(1)

"""`factory-logs send`, `ship` and `tail`: the device's side, on the command line. They need no server installed."""

from pathlib import Path
from typing import Annotated

import typer

from factory_logs.cli.device_options import (
    DEFAULT_SPOOL,
    DEFAULT_URL,
    Password,
    SpoolFolder,
    Token,
    TokenFile,
    Url,
    Username,
)
from factory_logs.cli.reporting import reporting_errors


def send(
    app_name: Annotated[str, typer.Argument(help="The app that reports.")],
    imei: Annotated[str | None, typer.Option(help="The unit, by its 15 digits.")] = None,
    repair_id: Annotated[int | None, typer.Option(help="The repair that the log belongs to.")] = None,
    timestamp: Annotated[str | None, typer.Option(help="When it happened, ISO 8601.", show_default="now")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Who and where, such as jig_id=J-07; text.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="What was measured, such as voltage=3.28; JSON, or else text.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the delivery.", min=0)] = 5.0,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
    username: Username = None,
    password: Password = None,
    spool: SpoolFolder = DEFAULT_SPOOL,
) -> None:
    """Send one log. Once it is in the spool the command has succeeded; what cannot be delivered now is sent later."""
    with reporting_errors():
        from factory_logs.cli.sending import client_of, members, run_send

        log = {"product_imei": imei, "repair_id": repair_id, "timestamp": timestamp}
        with client_of(url, token, token_file, username, password, spool) as client:
            run_send(client, app_name, log, members(tag, as_json=False), members(field, as_json=True), wait)


def ship(
    file: Annotated[Path, typer.Argument(help="A file that something else appends to.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as the file grows and is rotated.")] = False,
    plain: Annotated[bool, typer.Option(help="Lines are text, not JSON: each becomes fields.message.")] = False,
    app_name: Annotated[str | None, typer.Option(help="The app of lines that name none.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Tags of lines that have none, such as jig_id=J-07.")] = None,
    rotated_seconds: Annotated[
        float, typer.Option(help="How long a rotated file must be silent before the next is begun.", min=0)
    ] = 2.0,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
    username: Username = None,
    password: Password = None,
    spool: SpoolFolder = DEFAULT_SPOOL,
) -> None:
    """Ship a file's lines, each a log as JSON. It goes on where it stopped last time; bad lines go to `spool show`."""
    with reporting_errors():
        from factory_logs.cli.sending import client_of, members
        from factory_logs.cli.shipping import run_ship

        with client_of(url, token, token_file, username, password, spool) as client:
            run_ship(client, file, follow, plain, app_name, members(tag, as_json=False), rotated_seconds)


def tail(
    q: Annotated[str | None, typer.Option("--q", help="Only logs that this q selects; filters only.")] = None,
    after: Annotated[int | None, typer.Option(help="Begin after this id; 0 for all.", show_default="now")] = None,
    json: Annotated[bool, typer.Option("--json", help="Whole records as NDJSON, for other programs.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    token_file: TokenFile = None,
    username: Username = None,
    password: Password = None,
) -> None:
    """Show new logs as they are stored, green where fields.passed is true and red where it is false."""
    with reporting_errors():
        from factory_logs.cli.sending import credentials
        from factory_logs.cli.tailing import run_tail

        run_tail(url, credentials(token, token_file, username, password), q, after, json)

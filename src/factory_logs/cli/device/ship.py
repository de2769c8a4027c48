"""`factory-logs ship`: send the lines of a file to which another program appends."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factory_logs.cli.device.options import (
    ServerOptions,
    SpoolFolder,
    parse_members,
    with_server_options,
)
from factory_logs.cli.output import CommandError, counted, print_message, reporting_errors
from factory_logs.device_environment import DEFAULT_SPOOL

if TYPE_CHECKING:
    from factory_logs.client import Client
    from factory_logs.client.file_shipping import LineMaker, Shipper

POLL_SECONDS = 0.5
FULL_SECONDS = 5.0


@with_server_options
def ship(
    file: Annotated[Path, typer.Argument(help="A file to which another program appends.")],
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Continue while the file grows and is rotated.")
    ] = False,
    plain: Annotated[bool, typer.Option(help="Lines are text, not JSON: each becomes fields.message.")] = False,
    app_name: Annotated[str | None, typer.Option(help="The app of lines without app_name.")] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag of lines without tags, such as jig_id=J-07.")] = None,
    rotated_seconds: Annotated[
        float, typer.Option(help="How long a rotated file must not grow before the next file is read.", min=0)
    ] = 2.0,
    *,
    server: ServerOptions,
    spool: SpoolFolder = DEFAULT_SPOOL,
) -> None:
    """Ship the lines of a file, each a log as JSON. The command continues where the last run stopped.

    Bad lines are set aside (see `spool show`) and the exit code is 1. Without --follow, a last line without a line end
    is left for the next run.
    """
    with reporting_errors():
        tags = parse_members("--tag", tag, as_json=False)
        if plain and app_name is None:
            raise CommandError("--plain needs --app-name, because a line of text has no app_name")
        if not follow and not file.exists():
            raise CommandError(f"there is no file {file}")
        with server.client(spool) as client:
            make_line = _plain_line(client, app_name or "", tags) if plain else _json_line(client, app_name, tags)
            try:
                _ship(client, file, make_line, follow, rotated_seconds)
            except OSError as error:
                raise CommandError(f"{file} cannot be read: {error.strerror}") from None


def _ship(client: "Client", file: Path, make_line: "LineMaker", follow: bool, rotated_seconds: float) -> None:
    """Ship until the end of the file, or with `follow` until interrupted.

    Raises CommandError if lines were bad, SpoolError.
    """
    from factory_logs.client.file_shipping import Shipper

    with Shipper(client, file, make_line, rotated_seconds=rotated_seconds) as shipper:
        try:
            _spool_lines(shipper, follow)
        except KeyboardInterrupt:
            print_message("")
        print_message(f"Spooled {counted(shipper.shipped, 'line')} of {file}")
        if shipper.file.unfinished_bytes:
            print_message("The last line has no line end yet; the next run ships it when it is complete")
        if shipper.rejected:
            are = "is" if shipper.rejected == 1 else "are"
            raise CommandError(
                f"{counted(shipper.rejected, 'bad line')} of {file} {are} not sent; see factory-logs spool show"
            )


def _spool_lines(shipper: "Shipper", follow: bool) -> None:
    from factory_logs.client import SpoolFullError

    has_warned = False
    while True:
        try:
            went_on = shipper.step(to_the_end=not follow)
        except SpoolFullError as error:  # no lines are lost: they are still in the file
            print_message(f"waiting: {error}")
            time.sleep(FULL_SECONDS)
            continue
        if shipper.file.lost_track and not has_warned:
            print_message(
                "warning: the file was truncated or removed, and no rotated copy contains its remaining lines"
            )
            has_warned = True
        if went_on:
            continue
        if not follow:
            return
        time.sleep(POLL_SECONDS)


def _json_line(client: "Client", app_name: str | None, tags: dict[str, Any] | None) -> "LineMaker":
    from factory_logs.client.spool_line import log_line_from_json

    given = {name: value for name, value in (("app_name", app_name), ("tags", tags)) if value is not None}
    limits = client.limits
    return lambda line: log_line_from_json(line, {"timestamp": client.now(), **given}, limits)


def _plain_line(client: "Client", app_name: str, tags: dict[str, Any] | None) -> "LineMaker":
    from factory_logs.client.spool_line import log_line

    limits = client.limits

    def make(line: bytes) -> bytes:
        text = line.decode("utf-8", "backslashreplace").replace("\0", "\\0")
        record = {"app_name": app_name, "timestamp": client.now(), "tags": tags, "fields": {"message": text}}
        return log_line(record, limits)

    return make

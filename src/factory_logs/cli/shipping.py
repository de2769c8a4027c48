"""What `ship` does."""

import time
from pathlib import Path
from typing import Any

from factory_logs.cli.reporting import CommandError, tell
from factory_logs.client.client import Client
from factory_logs.client.errors import SpoolFullError
from factory_logs.client.lines import line_of, line_of_json
from factory_logs.client.shipping import LineMaker, Shipper
from factory_logs.schemas.storable import Limits

POLL_SECONDS = 0.5
FULL_SECONDS = 5.0


def run_ship(
    client: Client,
    file: Path,
    follow: bool,
    plain: bool,
    app_name: str | None,
    tags: dict[str, Any] | None,
    rotated_seconds: float,
) -> None:
    """Ship until the end of the file, or with `follow` until interrupted. Raises CommandError, SpoolError."""
    if plain and app_name is None:
        raise CommandError("--plain needs --app-name: a line of text names no app")
    if not follow and not file.exists():
        raise CommandError(f"there is no file {file}")
    make_line = _plain_line(client, app_name or "", tags) if plain else _json_line(client, app_name, tags)
    with Shipper(client, file, make_line, rotated_seconds=rotated_seconds) as shipper:
        try:
            _ship(shipper, follow)
        except KeyboardInterrupt:
            tell("")
        tell(f"Spooled {shipper.shipped} lines of {file}, {shipper.rejected} of them bad: factory-logs spool show"
             if shipper.rejected else f"Spooled {shipper.shipped} lines of {file}")  # fmt: skip


def _ship(shipper: Shipper, follow: bool) -> None:
    told = False
    while True:
        try:
            went_on = shipper.step(to_the_end=not follow)
        except SpoolFullError as error:  # the file itself keeps what the spool cannot take yet
            tell(f"waiting: {error}")
            time.sleep(FULL_SECONDS)
            continue
        if shipper.file.lost_track and not told:
            tell("warning: the file was truncated or removed, and no rotated copy holds what was left of it")
            told = True
        if went_on:
            continue
        if not follow:
            return
        time.sleep(POLL_SECONDS)


def _json_line(client: Client, app_name: str | None, tags: dict[str, Any] | None) -> LineMaker:
    given = {name: value for name, value in (("app_name", app_name), ("tags", tags)) if value is not None}
    limits = client.limits
    return lambda line: line_of_json(line, {"timestamp": client.now(), **given}, limits)


def _plain_line(client: Client, app_name: str, tags: dict[str, Any] | None) -> LineMaker:
    limits: Limits = client.limits

    def make(line: bytes) -> bytes:
        text = line.decode("utf-8", "backslashreplace").replace("\0", "\\0")
        record = {"app_name": app_name, "timestamp": client.now(), "tags": tags, "fields": {"message": text}}
        return line_of(record, limits)

    return make

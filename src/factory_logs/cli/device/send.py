"""`factory-logs send`: put one log into the spool, and wait a while for its delivery."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factory_logs.cli.device.options import (
    ServerOptions,
    SpoolFolder,
    parse_members,
    with_server_options,
)
from factory_logs.cli.output import print_message, reporting_errors
from factory_logs.device_environment import DEFAULT_SPOOL

if TYPE_CHECKING:
    from factory_logs.client import Client


@with_server_options
def send(
    app_name: Annotated[str, typer.Argument(help="The app that reports.")],
    imei: Annotated[str | None, typer.Option(help="The unit, by its 15 digits.")] = None,
    repair_id: Annotated[int | None, typer.Option(help="The repair that the log belongs to.")] = None,
    timestamp: Annotated[
        str | None, typer.Option(help="When it happened, ISO 8601; UTC without a zone.", show_default="now")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="Who and where, such as jig_id=J-07; text.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="What was measured, such as voltage=3.28; JSON, or else text.")
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the delivery.", min=0)] = 5.0,
    *,
    server: ServerOptions,
    spool: SpoolFolder = DEFAULT_SPOOL,
) -> None:
    """Send one log. The command succeeds when the log is in the spool; if the server cannot be reached, it is sent
    later."""
    with reporting_errors():
        log = {
            "app_name": app_name,
            "product_imei": imei,
            "repair_id": repair_id,
            "timestamp": timestamp,
            "tags": parse_members(tag, as_json=False),
            "fields": parse_members(field, as_json=True),
        }
        with server.client(spool) as client:
            print_message(_send(client, log, wait))


def _send(client: "Client", log: Mapping[str, Any], wait_seconds: float) -> str:
    """Spool the log, wait for its delivery and return the outcome. Raises ClientError."""
    rejected_before = client.status().totals.rejected
    client.send(**log)
    if client.flush(wait_seconds):
        is_rejected = client.status().totals.rejected > rejected_before
        return "Rejected by the server; the spool keeps it: factory-logs spool show" if is_rejected else "Delivered"
    status = client.status()
    why = f": {status.trouble}" if status.trouble else ""
    return f"In the spool, not delivered yet{why}; {status.totals.pending} wait"

"""`factory-logs send`: store one log in the spool, and wait for its delivery for some seconds."""

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
    app_name: Annotated[str, typer.Argument(help="The app that writes the log.")],
    imei: Annotated[str | None, typer.Option(help="The IMEI of the unit, 15 digits.")] = None,
    repair_id: Annotated[int | None, typer.Option(help="The id of the log's repair.")] = None,
    timestamp: Annotated[
        str | None, typer.Option(help="The time of the log, ISO 8601; UTC without a zone.", show_default="now")
    ] = None,
    tag: Annotated[list[str] | None, typer.Option(help="A tag, such as jig_id=J-07; the value is text.")] = None,
    field: Annotated[
        list[str] | None,
        typer.Option(help="A measurement, such as voltage=3.28; the value is JSON, or text if it is not JSON."),
    ] = None,
    wait: Annotated[float, typer.Option(help="How many seconds to wait for the delivery.", min=0)] = 5.0,
    *,
    server: ServerOptions,
    spool: SpoolFolder = DEFAULT_SPOOL,
) -> None:
    """Send one log. The command succeeds when the log is in the spool. If the server cannot be reached, the log is sent
    later."""
    with reporting_errors():
        log = {
            "app_name": app_name,
            "product_imei": imei,
            "repair_id": repair_id,
            "timestamp": timestamp,
            "tags": parse_members("--tag", tag, as_json=False),
            "fields": parse_members("--field", field, as_json=True),
        }
        with server.client(spool) as client:
            print_message(_send(client, log, wait))


def _send(client: "Client", log: Mapping[str, Any], wait_seconds: float) -> str:
    """Store the log in the spool, wait for its delivery and return the result. Raises ClientError."""
    rejected_before = client.status().totals.rejected
    client.send(**log)
    if client.flush(wait_seconds):
        is_rejected = client.status().totals.rejected > rejected_before
        return "Rejected by the server; the spool keeps it: factory-logs spool show" if is_rejected else "Delivered"
    status = client.status()
    why = f": {status.trouble}" if status.trouble else ""
    return f"In the spool, not delivered yet{why}; {status.totals.pending} wait"

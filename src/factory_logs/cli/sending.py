"""What `send` does, and how the device's commands come to a client."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from factory_logs.cli.reporting import CommandError, tell
from factory_logs.client.client import Client, credentials_of
from factory_logs.client.credentials import Credentials


def client_of(
    url: str, token: str | None, token_file: Path | None, username: str | None, password: str | None, spool: Path
) -> Client:
    """Raises CommandError for options that do not fit together, SpoolError."""
    try:
        return Client(url, token, spool=spool.expanduser(), token_file=token_file, username=username, password=password)
    except ValueError as error:
        raise CommandError(_as_options(error)) from None


def credentials(token: str | None, token_file: Path | None, username: str | None, password: str | None) -> Credentials:
    """Raises CommandError for options that do not fit together."""
    try:
        return credentials_of(token, token_file, username, password)
    except ValueError as error:
        raise CommandError(_as_options(error)) from None


def _as_options(error: ValueError) -> str:
    return f"{error} (--url, --token, --token-file, --username, --password or FACTORY_LOGS_URL and so on)"


def members(pairs: Sequence[str] | None, *, as_json: bool) -> dict[str, Any] | None:
    """`name=value` pairs as an object; None for none. Raises CommandError."""
    if not pairs:
        return None
    found: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise CommandError(f"{pair!r} is not like name=value")
        found[name] = _json_or_text(value) if as_json else value
    return found


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def run_send(
    client: Client, app_name: str, log: Mapping[str, Any], tags: object, fields: object, wait_seconds: float
) -> None:
    """Spool the log, then wait for the delivery. Raises ClientError."""
    rejected_before = client.status().totals.rejected
    client.send(app_name, **log, tags=tags, fields=fields)
    if client.flush(wait_seconds):
        is_rejected = client.status().totals.rejected > rejected_before
        tell("Rejected by the server; the spool keeps it: factory-logs spool show" if is_rejected else "Delivered")
        return
    status = client.status()
    why = f": {status.trouble}" if status.trouble else ""
    tell(f"In the spool, not delivered yet{why}; {status.totals.pending} wait")

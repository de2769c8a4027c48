"""Whether a batch is on the server when another try under its key would not tell: by looking for its logs.

A batch is stored whole or not at all, so a log of it that is not there proves that none is. One that is there may be an
equal log of another batch, sent by a script that gives times of its own: so several are looked for, and only among
what the server has stored since this batch may first have left. All that this device sent before was answered by then.
"""

from datetime import UTC, datetime
from typing import Any

import orjson

from factory_logs.client.delivery import Failed, Link, Unauthorised
from factory_logs.client.outbox import Batch
from factory_logs.schemas.timestamps import format_timestamp

SAMPLES = 3
MAX_PAGES = 20
CLOCKS_APART_SECONDS = 3600.0
"""How far the clocks of the web server and of the database may be apart, at most."""
_COMPARED = ("app_name", "product_imei", "repair_id", "timestamp", "tags", "fields")


def is_stored(batch: Batch, link: Link) -> bool | Unauthorised | Failed | None:
    """Whether the server has the batch; None where looking cannot tell; or why it cannot be asked now."""
    stored: bool | None = True
    for line in _samples(batch):
        found = _is_there(orjson.loads(line), _since(batch, link), link)
        if found is False or isinstance(found, Unauthorised | Failed):
            return found
        stored = stored and found
    return stored


def _samples(batch: Batch) -> list[bytes]:
    last = len(batch.lines) - 1
    return [batch.lines[place] for place in sorted({last * n // (SAMPLES - 1) for n in range(SAMPLES)})]


def _since(batch: Batch, link: Link) -> str | None:
    """Before when the batch cannot have been stored; None where the server's clock was set back meanwhile."""
    if link.clock.now() < batch.started_at:
        return None
    moment = datetime.fromtimestamp(max(0.0, batch.started_at - CLOCKS_APART_SECONDS), UTC)
    return format_timestamp(moment.replace(tzinfo=None))


def _is_there(log: dict[str, Any], since: str | None, link: Link) -> bool | Unauthorised | Failed | None:
    filters: list[dict[str, Any]] = [{"name": name, "op": "==", "val": log[name]} for name in ("app_name", "timestamp")]
    if "product_imei" in log:
        filters.append({"name": "product_imei", "op": "==", "val": log["product_imei"]})
    if since is not None:
        filters.append({"name": "created_at", "op": ">=", "val": since})
    wanted = _identity(log)
    for page in range(1, MAX_PAGES + 1):
        records = link.query({"filters": filters}, page)
        if not isinstance(records, list):
            return records
        if any(_identity(record) == wanted for record in records):
            return True
        if not records:
            return False
    return None


def _identity(log: dict[str, Any]) -> list[Any]:
    return [log.get(name) for name in _COMPARED]

"""Whether a batch is on the server when its key is too old to be believed: by looking for its logs.

A batch is stored whole or not at all, so one log of it decides. A log is known again by everything in it; as the
client gives each log a time of its own to the microsecond, two logs of one device are never the same, unless a script
sends the very same log with the same `timestamp` twice.
"""

from typing import Any

import orjson

from factory_logs.client.delivery import Failed, Link, Unauthorised
from factory_logs.client.outbox import Batch

SAMPLES = 3
MAX_PAGES = 20
_COMPARED = ("app_name", "product_imei", "repair_id", "timestamp", "tags", "fields")


def is_stored(batch: Batch, link: Link) -> bool | Unauthorised | Failed | None:
    """Whether the server has the batch; None where looking cannot tell; or why it cannot be asked now."""
    for line in _samples(batch):
        found = _is_there(orjson.loads(line), link)
        if found is not False:
            return found
    return False


def _samples(batch: Batch) -> list[bytes]:
    last = len(batch.lines) - 1
    return [batch.lines[place] for place in sorted({last * n // (SAMPLES - 1) for n in range(SAMPLES)})]


def _is_there(log: dict[str, Any], link: Link) -> bool | Unauthorised | Failed | None:
    filters: list[dict[str, Any]] = [{"name": name, "op": "==", "val": log[name]} for name in ("app_name", "timestamp")]
    if "product_imei" in log:
        filters.append({"name": "product_imei", "op": "==", "val": log["product_imei"]})
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

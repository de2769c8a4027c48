"""Python's logging into Factory Logs: a handler that puts each log record into a client's spool."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from factory_logs.client.background import is_sender
from factory_logs.client.client import Client

LONGEST_MESSAGE = 32 * 1024


class FactoryLogsHandler(logging.Handler):
    """Sends log records as logs of `app_name`.

    `fields` get the message, level and logger, `passed` false for errors and worse; what the call gives as
    `extra={"fields": {...}}` goes over these. `product_imei`, `repair_id` and `tags` may come by `extra` too; `tags`
    here are those of every log.
    """

    def __init__(
        self, client: Client, app_name: str, *, tags: Mapping[str, Any] | None = None, level: int = logging.NOTSET
    ) -> None:
        super().__init__(level)
        self._client = client
        self._app_name = app_name
        self._tags = dict(tags or {})

    def emit(self, record: logging.LogRecord) -> None:
        """Spool the record. A fault is reported as logging does it, never raised into the script."""
        if is_sender(record.thread):
            return  # the sender's own words, or those of the HTTP library in its thread
        try:
            self._client.send(
                self._app_name,
                product_imei=getattr(record, "product_imei", None),
                repair_id=getattr(record, "repair_id", None),
                timestamp=datetime.fromtimestamp(record.created, UTC),
                tags=self._tags | (getattr(record, "tags", None) or {}) or None,
                fields=self._fields(record),
            )
        except Exception:  # noqa: BLE001 - as every handler of the standard library does
            self.handleError(record)

    def _fields(self, record: logging.LogRecord) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "message": _storable(self.format(record)),
            "level": record.levelname,
            "logger": record.name,
        }
        if record.levelno >= logging.ERROR:
            fields["passed"] = False
        return fields | (getattr(record, "fields", None) or {})


def _storable(text: str) -> str:
    """The text without what PostgreSQL cannot hold, so that no message is lost for one character in it."""
    text = text[:LONGEST_MESSAGE].replace("\0", "\\0")
    return text.encode("utf-8", "backslashreplace").decode()

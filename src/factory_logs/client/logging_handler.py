"""A handler for Python's logging that puts log records into a client's spool."""

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from factory_logs.client.client import Client
from factory_logs.client.measurements import storable_text
from factory_logs.client.sender_thread import is_sender

_OWN = "factory_logs.client."
"""The beginning of the names of the client's loggers."""


class FactoryLogsHandler(logging.Handler):
    """Sends log records as logs of `app_name`.

    `fields` contains message, level and logger, and `passed: false` at level ERROR and above. In a logging call,
    `extra={"fields": {...}}` adds or replaces fields. `extra` may also contain `product_imei`, `repair_id` and `tags`.
    The handler's own `tags` are added to every log. Records of the client itself are not sent.
    """

    def __init__(
        self, client: Client, app_name: str, *, tags: Mapping[str, Any] | None = None, level: int = logging.NOTSET
    ) -> None:
        super().__init__(level)
        self._client = client
        self._app_name = app_name
        self._tags = dict(tags or {})

    def handle(self, record: logging.LogRecord) -> bool:
        """Emit the record, unless it is from the client, or from the HTTP library in a sender's thread.

        Such a record is left out before the handler is locked: `emit` of another record may wait, inside the lock,
        until the sender has freed space in the spool, or until a thread that has logged releases the spool.
        """
        if record.name.startswith(_OWN) or is_sender(record.thread):
            return False
        return bool(super().handle(record))

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record into the spool. Errors are reported as by other logging handlers, and never raised into the
        script."""
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
            "message": storable_text(self.format(record)),
            "level": record.levelname,
            "logger": record.name,
        }
        if record.levelno >= logging.ERROR:
            fields["passed"] = False
        return fields | (getattr(record, "fields", None) or {})

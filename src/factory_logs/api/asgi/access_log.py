"""Write a log line for each request.

The lines are collected for a tenth of a second and written together: a separate write for each line would take a
considerable part of the time of a small request.
"""

import asyncio
import sys
from datetime import UTC, datetime
from typing import BinaryIO

from factory_logs.logging import LossyStream, format_line

FLUSH_SECONDS = 0.1
FLUSH_LINES = 1000
LOGGED_PATH_CHARACTERS = 500


class AccessLog:
    """Collects the request lines of a worker. Call `write` on its event loop, and `flush` at the end."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    def write(
        self,
        *,
        request_id: object,
        method: str,
        route: str,
        status: int,
        seconds: float,
        user: object,
        trace_id: object = None,
    ) -> None:
        """Add the line of one request. It never contains a body, a query string or a header, because they may contain
        secrets."""
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        line = {
            "request_id": request_id,
            "method": method,
            "route": route[:LOGGED_PATH_CHARACTERS],
            "status": status,
            "ms": round(seconds * 1000, 2),
            "user": user,
        }
        if trace_id is not None:
            line["trace_id"] = trace_id
        line |= {"event": "request", "level": "info", "timestamp": datetime.now(UTC).isoformat()}
        self._lines.append(format_line(line))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write the collected lines."""
        if self._lines:
            lines, self._lines = self._lines, []
            stream = LossyStream(self._stream or sys.stderr.buffer)
            stream.write(b"\n".join(lines) + b"\n")
            stream.flush()

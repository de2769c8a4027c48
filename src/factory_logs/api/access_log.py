"""The log line of each request, in the form of the other lines (logs.py).

Lines are gathered for a tenth of a second and written together: a write of its own for each would cost a small request
a good part of its time.
"""

import asyncio
import sys
from datetime import UTC, datetime
from typing import BinaryIO

import orjson

FLUSH_SECONDS = 0.1
FLUSH_LINES = 1000


class AccessLog:
    """One worker's request lines. `write` on its event loop, `flush` at the end."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream
        self._lines: list[bytes] = []

    def write(self, **line: object) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        line |= {"event": "request", "level": "info", "timestamp": datetime.now(UTC).isoformat()}
        self._lines.append(orjson.dumps(line))
        if len(self._lines) >= FLUSH_LINES:
            self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        if self._lines:
            lines, self._lines = self._lines, []
            stream = self._stream or sys.stderr.buffer
            stream.write(b"\n".join(lines) + b"\n")
            stream.flush()

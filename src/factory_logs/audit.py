"""Who logged in, and who changed users and tokens: a line of JSON for each, of the service and of the commands.

Never a password or a token in it: a token is named by the beginning of the hash that it is stored under.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson
import structlog

_log = structlog.get_logger(__name__)


class Audit:
    """Appends to a file, or writes on stderr where there is none."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def note(self, action: str, **details: object) -> None:
        """One line. It never fails: that a disk is full must not keep anybody out."""
        moment = datetime.now(UTC).isoformat()
        known = {name: _plain(value) for name, value in details.items()}
        line = orjson.dumps({"event": "audit", "action": action, **known, "level": "info", "timestamp": moment})
        try:
            if self._file is None:
                sys.stderr.write(line.decode() + "\n")
                sys.stderr.flush()
            else:
                self._append(self._file, line + b"\n")
        except OSError as error:
            _log.error("an audit line could not be written", reason=str(error), action=action)

    @staticmethod
    def _append(file: Path, line: bytes) -> None:
        """In one write: the lines of several processes do not mix."""
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def _plain(value: object) -> object:
    """Without the lone surrogates that a caller may send for a name, which JSON cannot hold."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

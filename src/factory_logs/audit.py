"""Write a line for each login and each change of users and tokens, in the service and in commands.

The line is JSON, or plain text on a terminal. It never contains a password or a token: a token is identified by the
beginning of its hash.
"""

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import orjson
import structlog

_log = structlog.get_logger(__name__)


class Audit:
    """Appends lines to a file, or writes them to stderr if there is none."""

    def __init__(self, file: Path | None) -> None:
        self._file = file

    def note(self, action: str, **details: object) -> None:
        """Write one line. Never raises: a full disk must not prevent a login."""
        moment = datetime.now(UTC).isoformat()
        known = {name: _plain(value) for name, value in details.items()}
        line = orjson.dumps({"event": "audit", "action": action, **known, "level": "info", "timestamp": moment})
        try:
            if self._file is not None:
                self._append(self._file, line + b"\n")
            else:
                sys.stderr.write((_as_text(action, known) if sys.stderr.isatty() else line.decode()) + "\n")
                sys.stderr.flush()
        except OSError as error:
            _log.error("an audit line could not be written", reason=str(error), action=action)

    @staticmethod
    def _append(file: Path, line: bytes) -> None:
        """Append the line in one write, so that lines of several processes do not mix."""
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, line)
        finally:
            os.close(descriptor)


def _as_text(action: str, details: dict[str, object]) -> str:
    return " ".join([f"audit: {action}:", *(f"{name}={_for_terminal(value)}" for name, value in details.items())])


def _for_terminal(value: object) -> str:
    """Return the value. Every character that controls a terminal, or makes the value look like another detail, is
    escaped."""
    text = str(value)
    safe = text.isascii() and text.isprintable() and not set(text) & set(' "=')
    return text if safe else json.dumps(text)


def _plain(value: object) -> object:
    """Return the value without lone surrogates, which JSON cannot contain but a client's name may."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value

"""The bodies and headers of InfluxDB's responses, for both versions (docs/reference/http-api.md#influxdbs-calls).

This module is independent of the web framework; api/routes/influxdb.py makes HTTP responses from it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson

from factory_logs import __version__
from factory_logs.errors import FactoryLogsError, FieldError

EMULATED_VERSION = "1.8.10"
"""The last version of InfluxDB with both write calls. Clients use the version to decide which requests they may
send."""

VERSION_HEADERS = {"X-Influxdb-Version": EMULATED_VERSION, "X-Influxdb-Build": f"Factory Logs {__version__}"}
LONGEST_ERROR_HEADER = 500
_NOT_FOR_A_HEADER = re.compile(r"[^\x20-\x7e]+")

_CODES = {
    400: "invalid",
    401: "unauthorized",
    403: "forbidden",
    404: "not found",
    408: "unavailable",
    409: "conflict",
    413: "request too large",
    415: "invalid",
    429: "too many requests",
    503: "unavailable",
}
"""The error code of version 2 for each status."""


@dataclass(frozen=True, slots=True)
class RejectedLines:
    """The rejected lines of a write whose other lines were stored."""

    count: int
    errors: Sequence[FieldError]
    """The first errors; `index` is the number of the line, from 1."""
    stored: int

    @property
    def text(self) -> str:
        """Return one line of text for each error. Clients look for "unable to parse" and "partial write" in it."""
        listed = {error.index for error in self.errors}
        lines = list(map(_with_line_number, self.errors))
        if self.count > len(listed):
            lines.append(f"and {self.count - len(listed)} more")
        text = "\n".join(lines)
        if not self.stored and all("unable to parse" in error.message for error in self.errors):
            return text
        return f"partial write: {text} dropped={self.count}"


def error_message(error: FactoryLogsError) -> str:
    """Return the message of an error, with the messages for its fields and lines."""
    return ": ".join([error.message, *map(_with_line_number, error.errors)])


def _with_line_number(error: FieldError) -> str:
    return str(error) if error.index is None else f"line {error.index}: {error}"


class Dialect(Protocol):
    """The format of the response bodies in one version."""

    challenge: str
    """The WWW-Authenticate header of a 401."""

    def rejected(self, rejected: RejectedLines) -> bytes:
        """Return the body for a write of which some lines were not stored."""

    def failed(self, status: int, message: str) -> bytes:
        """Return the body of any other error."""

    def message(self, body: bytes) -> str:
        """Return the message in a body of `rejected` or `failed`."""


class Version1:
    """The errors of version 1: `{"error": "..."}`"""

    challenge = 'Basic realm="InfluxDB"'

    def rejected(self, rejected: RejectedLines) -> bytes:
        return orjson.dumps({"error": rejected.text})

    def failed(self, status: int, message: str) -> bytes:
        return orjson.dumps({"error": message})

    def message(self, body: bytes) -> str:
        return str(orjson.loads(body)["error"])


class Version2:
    """The errors of version 2: `{"code": "invalid", "message": "...", "line": 2}`"""

    challenge = 'Token realm="InfluxDB"'

    def rejected(self, rejected: RejectedLines) -> bytes:
        first = {"line": rejected.errors[0].index} if rejected.errors else {}
        return orjson.dumps({"code": "invalid", "message": rejected.text} | first)

    def failed(self, status: int, message: str) -> bytes:
        return orjson.dumps({"code": _CODES[status], "message": message})

    def message(self, body: bytes) -> str:
        return str(orjson.loads(body)["message"])


def error_header(message: str) -> dict[str, str]:
    """Return the header in which InfluxDB repeats the error message."""
    return {"X-Influxdb-Error": _NOT_FOR_A_HEADER.sub(" ", message)[:LONGEST_ERROR_HEADER].strip()}

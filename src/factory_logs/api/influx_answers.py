"""How the two versions of InfluxDB answer a write: the same events, each in its own body and headers (SPEC 8)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import orjson
from starlette.responses import Response

from factory_logs import __version__, metrics
from factory_logs.api.answers import REPLAYED, EmptyAnswer, JsonAnswer
from factory_logs.api.errors import headers_of
from factory_logs.errors import HTTP_STATUS, FactoryLogsError, FieldError

EMULATED_VERSION = "1.8.10"
"""The last version that has both kinds of write; clients choose by it what they may send."""

VERSION_HEADERS = {"X-Influxdb-Version": EMULATED_VERSION, "X-Influxdb-Build": f"Factory Logs {__version__}"}
LONGEST_ERROR_HEADER = 500
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in VERSION_HEADERS.items()]
_RAW_REPLAYED_HEADERS = _RAW_HEADERS + [(name.lower().encode(), value.encode()) for name, value in REPLAYED.items()]
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
"""Version 2's word for each status."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The lines of a write that were not stored; the others were."""

    count: int
    faults: Sequence[FieldError]
    """The first of them; `index` is the line's number, from 1."""
    stored: int

    @property
    def text(self) -> str:
        """One line of text for each; "unable to parse" and "partial write" are what clients look for."""
        told = {fault.index for fault in self.faults}
        lines = [f"line {fault.index}: {in_words(fault)}" for fault in self.faults]
        if self.count > len(told):
            lines.append(f"and {self.count - len(told)} more")
        text = "\n".join(lines)
        if not self.stored and all("unable to parse" in fault.message for fault in self.faults):
            return text
        return f"partial write: {text} dropped={self.count}"


def in_words(fault: FieldError) -> str:
    return f"{fault.field}: {fault.message}" if fault.field else fault.message


class Dialect(Protocol):
    """One version's way to answer."""

    challenge: str
    """What a 401 asks for."""

    def rejected(self, rejected: Rejected) -> bytes:
        """The body that tells which lines were not stored."""

    def failed(self, status: int, message: str) -> bytes:
        """The body of any other error."""

    def message(self, body: bytes) -> str:
        """What a body of this dialect tells."""


class Version1:
    """`{"error": "..."}`"""

    challenge = 'Basic realm="InfluxDB"'

    def rejected(self, rejected: Rejected) -> bytes:
        return orjson.dumps({"error": rejected.text})

    def failed(self, status: int, message: str) -> bytes:
        return orjson.dumps({"error": message})

    def message(self, body: bytes) -> str:
        return str(orjson.loads(body)["error"])


class Version2:
    """`{"code": "invalid", "message": "...", "line": 2}`"""

    challenge = 'Token realm="InfluxDB"'

    def rejected(self, rejected: Rejected) -> bytes:
        first = {"line": rejected.faults[0].index} if rejected.faults else {}
        return orjson.dumps({"code": "invalid", "message": rejected.text} | first)

    def failed(self, status: int, message: str) -> bytes:
        return orjson.dumps({"code": _CODES[status], "message": message})

    def message(self, body: bytes) -> str:
        return str(orjson.loads(body)["message"])


def answer(dialect: Dialect, body: bytes, *, replayed: bool = False) -> Response:
    """The answer to a write: 204, or 400 with the body that tells what was not stored."""
    if not body:
        return EmptyAnswer(_RAW_REPLAYED_HEADERS if replayed else _RAW_HEADERS)
    headers = VERSION_HEADERS | REPLAYED if replayed else VERSION_HEADERS
    return _error(dialect, 400, body, headers)


def error_answer(dialect: Dialect, error: FactoryLogsError) -> Response:
    """Any domain error as this version puts it."""
    metrics.REJECTED.labels(type(error).__name__.removesuffix("Error")).inc()
    status = HTTP_STATUS[type(error)]
    message = ": ".join([error.message, *(in_words(fault) for fault in error.errors)])
    headers = VERSION_HEADERS | headers_of(error, dialect.challenge)
    return _error(dialect, status, dialect.failed(status, message), headers)


def _error(dialect: Dialect, status: int, body: bytes, headers: dict[str, str]) -> Response:
    text = _NOT_FOR_A_HEADER.sub(" ", dialect.message(body))[:LONGEST_ERROR_HEADER].strip()
    return JsonAnswer(body, status, headers | {"X-Influxdb-Error": text})

"""Configure structured log lines on stderr, one JSON object each, for the service, uvicorn and other libraries.

api/asgi/access_log.py writes the line of each request.
"""

import json
import logging
import sys
from contextlib import suppress
from typing import Any, BinaryIO, cast

import orjson
import structlog

STANDARD_LIBRARY: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "factory_logs.logging.json_formatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json"}},
    "loggers": {"uvicorn": {"handlers": ["stderr"], "level": "INFO", "propagate": False}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
}
"""The configuration for logging.config.dictConfig that writes the lines of the standard library's loggers in the same
format."""


def json_formatter() -> logging.Formatter:
    """Return a formatter of JSON lines like those of `configure`, with the logger's name."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json_text),
        ],
    )


def format_line(value: object, **_: Any) -> bytes:
    """Return the JSON of a line with values of any type, because a line that cannot be written would hide an error."""
    try:
        return orjson.dumps(value, default=repr)
    except orjson.JSONEncodeError:  # a lone surrogate, a number over 64 bits
        return json.dumps(value, default=repr, skipkeys=True).encode()


def _json_text(value: object, **options: Any) -> str:
    return format_line(value, **options).decode()


class LossyStream:
    """A binary stream that drops output that cannot be written, for example because the disk is full.

    No request and no background task may end because its log line cannot be written.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, data: bytes) -> None:
        with suppress(OSError):
            self._stream.write(data)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()


def configure(level: str) -> None:
    """Configure logging for the process. Lines that are less severe than `level` are not written."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=format_line),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.BytesLoggerFactory(cast(BinaryIO, LossyStream(sys.stderr.buffer))),
        cache_logger_on_first_use=True,
    )

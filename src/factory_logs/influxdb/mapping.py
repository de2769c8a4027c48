"""Map points to factory logs, or raise the reason why they cannot be stored
(docs/reference/http-api.md#influxdbs-calls).

measurement -> `app_name`; tags `product_imei` and `repair_id` -> their columns, other tags -> `tags`; fields ->
`fields`; time -> `timestamp`, truncated to the microsecond. docs/how-to/moving-from-influxdb.md describes the other
direction.

The values of line protocol are finite numbers, 64-bit integers, booleans and strings. So only NUL, invalid UTF-8 and
the size must be checked, and once for each line is enough.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import NamedTuple

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.influxdb.line_protocol import (
    FieldValue,
    LineError,
    SeriesKey,
    parse_line,
    parse_series,
    parse_time,
    shown,
)
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.factory_log import IMEI_DIGITS, IMEI_PATTERN, LONGEST_APP_NAME, FactoryLogOut
from factory_logs.schemas.json_values import canonical_json
from factory_logs.schemas.record_limits import RecordLimits, record_bytes
from factory_logs.schemas.timestamps import format_timestamp, from_microseconds

MAX_CACHED_SERIES = 10_000
MAX_CACHED_CHARACTERS = 500

IMEI = re.compile(IMEI_PATTERN)
REPAIR_ID = re.compile(r"[0-9]{1,18}")
_BROKEN_UTF8 = re.compile("[\ud800-\udfff]")
COLUMNS_OF_LOGS = frozenset(FactoryLogOut.model_fields)
"""The names that no field may have."""

LONGEST_TIME = len('"2024-01-31 13:45:00.123456"')
"""The number of bytes by which a line's time counts towards the size of its record."""


class Origin(NamedTuple):
    """The columns that all logs of one series share.

    `size` is the size of a record with empty time and fields.
    """

    app_name: str
    product_imei: str | None
    repair_id: int | None
    tags: str | None
    size: int


def series_origin(series: SeriesKey) -> Origin:
    """Return the columns of a log that the series determines: app, IMEI, repair and tags.

    Raises BadRequestError that names a tag if it cannot be stored.
    """
    if len(series.measurement) > LONGEST_APP_NAME:
        raise _error("app_name", f"the measurement is over the limit of {LONGEST_APP_NAME} characters")
    tags: dict[str, str] = dict(series.tags)
    imei, repair = tags.pop("product_imei", None), tags.pop("repair_id", None)
    if imei is not None and IMEI.fullmatch(imei) is None:
        raise _error("product_imei", f"expected a tag of exactly {IMEI_DIGITS} digits")
    if repair is not None and REPAIR_ID.fullmatch(repair) is None:
        raise _error("repair_id", "expected a tag that is an integer, the id of a repair")
    text = canonical_json(tags) if tags else None
    repair_id = None if repair is None else int(repair)
    size = record_bytes(series.measurement, imei, repair_id, 0, text, b"")
    return Origin(series.measurement, imei, repair_id, None if text is None else text.decode(), size)


def origin_from_head(head: str) -> Origin:
    """Return the columns of a line from its head, the text before the fields. Raises LineError, BadRequestError."""
    return _cached_origin(head) if len(head) <= MAX_CACHED_CHARACTERS else _read_origin(head)


def _read_origin(head: str) -> Origin:
    return series_origin(parse_series(head))


_cached_origin = lru_cache(MAX_CACHED_SERIES)(_read_origin)
"""Cached across requests, because most lines belong to few series."""


def point_to_log(origin: Origin, fields: Mapping[str, FieldValue], time_ns: int, limits: RecordLimits) -> NewLog:
    """Return the log of one point. Raises BadRequestError if a field cannot be stored or the record is too large."""
    if not COLUMNS_OF_LOGS.isdisjoint(fields):
        raise _column_in_fields(fields)
    text = canonical_json(fields)
    timestamp = timestamp_from_ns(time_ns)
    size = origin.size + len(text)
    if size + LONGEST_TIME > limits.max_record_bytes:
        limits.check_size(size + len(f'"{format_timestamp(timestamp)}"'))
    return NewLog(origin.app_name, origin.product_imei, origin.repair_id, timestamp, origin.tags, text.decode())


def timestamp_from_ns(time_ns: int) -> datetime:
    """Return the time truncated to the microsecond, also before 1970."""
    return from_microseconds(time_ns // 1000)


def _column_in_fields(fields: Mapping[str, FieldValue]) -> BadRequestError:
    name = next(name for name in fields if name in COLUMNS_OF_LOGS)
    right = "send it as a tag" if name in ("product_imei", "repair_id") else "give it another name"
    return _error(f"fields.{name}", f"a field may not have the name of a column: {right}")


def _error(field: str, message: str) -> BadRequestError:
    return BadRequestError("Validation failed", [FieldError(field, message)])


class PointParser:
    """Parses single lines into logs."""

    def __init__(self, limits: RecordLimits, unit_ns: int, now_ns: int | None) -> None:
        """`unit_ns` is the unit of times in the lines. A line without a time gets `now_ns`, or is rejected if `now_ns`
        is None."""
        self._limits = limits
        self._unit_ns = unit_ns
        self._now_ns = now_ns
        self.used_now = False

    def read(self, line: str, max_characters: int) -> NewLog:
        """Return the log of a line. Raises BadRequestError, with InfluxDB's message if it has one."""
        check_text(line, max_characters)
        try:
            head, fields, time = parse_line(line)
            return point_to_log(origin_from_head(head), fields, self._time(time), self._limits)
        except LineError as error:
            raise unable_to_parse(line, error) from None

    def _time(self, text: str) -> int:
        if text:
            return parse_time(text, self._unit_ns)
        if self._now_ns is None:
            raise LineError("missing timestamp")
        self.used_now = True
        return self._now_ns


def check_text(line: str, max_characters: int) -> None:
    """Raise BadRequestError if the line is too long or contains characters that cannot be stored."""
    if len(line) > max_characters:
        raise _error("", f"the line is over the limit of {max_characters} characters, or a string in it has no end")
    if "\0" in line:
        raise _error("", "the NUL character cannot be stored")
    if not line.isascii() and _BROKEN_UTF8.search(line):
        raise _error("", "the line is not UTF-8")


def unable_to_parse(line: str, error: LineError) -> BadRequestError:
    return _error("", f"unable to parse '{shown(line)}': {error}")

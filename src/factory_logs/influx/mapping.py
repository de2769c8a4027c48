"""Points to factory logs, the rules of SPEC 8, and which points have no place there.

measurement -> `app_name`; tags `product_imei` and `repair_id` -> their columns, other tags -> `tags`; fields ->
`fields`; time -> `timestamp`, cut off to the microsecond. The other way round is in docs/moving-from-influxdb.md.

The line protocol's own values are finite numbers, 64-bit integers, booleans and strings, so of what SPEC 1 refuses
only NUL, broken UTF-8 and size are left to check; that is done here, once a line, and not value by value.
"""

import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.influx.line_protocol import FieldValue, LineError, Series, parse_line, parse_series, parse_time, shown
from factory_logs.ingest.records import Limits, NewLog
from factory_logs.schemas.factory_log import FactoryLogOut
from factory_logs.schemas.json_values import canonical_json
from factory_logs.schemas.storable import LONGEST_APP_NAME, record_bytes, too_large
from factory_logs.schemas.timestamps import format_timestamp

MAX_CACHED_SERIES = 10_000
MAX_CACHED_CHARACTERS = 500

IMEI = re.compile(r"[0-9]{15}")
REPAIR_ID = re.compile(r"[0-9]{1,18}")
_BROKEN_UTF8 = re.compile("[\ud800-\udfff]")
COLUMNS_OF_LOGS = frozenset(FactoryLogOut.model_fields)
"""No field may have one of these names."""

_EPOCH = datetime(1970, 1, 1)
LONGEST_TIME = len('"2024-01-31 13:45:00.123456"')
"""A time of a line counts for a record's size as JSON would give it out."""


class Origin(NamedTuple):
    """What all logs of one series share, ready to be stored.

    `size` is that of a record with empty text for its time and its fields.
    """

    app_name: str
    product_imei: str | None
    repair_id: int | None
    tags: str | None
    size: int


def origin_of(series: Series) -> Origin:
    """Raises BadRequestError naming the tag that has no place."""
    if len(series.measurement) > LONGEST_APP_NAME:
        raise _fault("app_name", f"the measurement is over the limit of {LONGEST_APP_NAME} characters")
    tags: dict[str, str] = dict(series.tags)
    imei, repair = tags.pop("product_imei", None), tags.pop("repair_id", None)
    if imei is not None and IMEI.fullmatch(imei) is None:
        raise _fault("product_imei", "expected a tag of exactly 15 digits")
    if repair is not None and REPAIR_ID.fullmatch(repair) is None:
        raise _fault("repair_id", "expected a tag that is an integer, the id of a repair")
    text = canonical_json(tags) if tags else None
    repair_id = None if repair is None else int(repair)
    size = record_bytes(series.measurement, imei, repair_id, 0, text, b"")
    return Origin(series.measurement, imei, repair_id, None if text is None else text.decode(), size)


def origin_of_head(head: str) -> Origin:
    """What stands before the fields of a line. Raises LineError, BadRequestError."""
    return _known_origin(head) if len(head) <= MAX_CACHED_CHARACTERS else _origin_of_text(head)


def _origin_of_text(head: str) -> Origin:
    return origin_of(parse_series(head))


_known_origin = lru_cache(MAX_CACHED_SERIES)(_origin_of_text)
"""Kept from one request to the next, as most lines are of few series."""


def log_of(origin: Origin, fields: Mapping[str, FieldValue], time_ns: int, limits: Limits) -> NewLog:
    """The log of one point. Raises BadRequestError where a field has no place or the record is too large."""
    if not COLUMNS_OF_LOGS.isdisjoint(fields):
        raise _column_in_fields(fields)
    text = canonical_json(fields)
    timestamp = timestamp_of(time_ns)
    room = limits.max_record_bytes - origin.size - len(text)
    if room < LONGEST_TIME and room < len(f'"{format_timestamp(timestamp)}"'):
        raise too_large(limits.max_record_bytes)
    return NewLog(origin.app_name, origin.product_imei, origin.repair_id, timestamp, origin.tags, text.decode())


def timestamp_of(time_ns: int) -> datetime:
    """Cut off to the microsecond, before 1970 too."""
    return _EPOCH + timedelta(microseconds=time_ns // 1000)


def _column_in_fields(fields: Mapping[str, FieldValue]) -> BadRequestError:
    name = next(name for name in fields if name in COLUMNS_OF_LOGS)
    right = "send it as a tag" if name in ("product_imei", "repair_id") else "give it another name"
    return _fault(f"fields.{name}", f"a field may not have the name of a column: {right}")


def _fault(field: str, message: str) -> BadRequestError:
    return BadRequestError("Validation failed", [FieldError(field, message)])


class PointReader:
    """Lines to logs."""

    def __init__(self, limits: Limits, unit_ns: int, now_ns: int | None) -> None:
        """`unit_ns` is the unit of the lines' times; `now_ns` stands for a time that is not there, None refuses it."""
        self._limits = limits
        self._unit_ns = unit_ns
        self._now_ns = now_ns
        self.used_now = False

    def read(self, line: str, max_characters: int) -> NewLog:
        """Raises BadRequestError: what is wrong with the line, in InfluxDB's words where it has some."""
        check_text(line, max_characters)
        try:
            head, fields, time = parse_line(line)
            return log_of(origin_of_head(head), fields, self._time(time), self._limits)
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
    """Raises BadRequestError for a line that is too long or holds what cannot be stored."""
    if len(line) > max_characters:
        raise _fault("", f"the line is over the limit of {max_characters} characters, or a string in it has no end")
    if "\0" in line:
        raise _fault("", "the NUL character cannot be stored")
    if not line.isascii() and _BROKEN_UTF8.search(line):
        raise _fault("", "the line is not UTF-8")


def unable_to_parse(line: str, error: LineError) -> BadRequestError:
    return _fault("", f"unable to parse '{shown(line)}': {error}")

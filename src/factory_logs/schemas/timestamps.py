"""Parse the datetimes of clients, and format those of responses (docs/reference/http-api.md#datetimes)."""

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import orjson
from pydantic import BeforeValidator, PlainValidator, WithJsonSchema

EXPECTED = (
    "expected an ISO 8601 datetime such as 2024-01-31T13:45:00.123456Z or 2024-01-31 13:45:00, a date, "
    "or an integer of milliseconds since 1970"
)
SERVER_TIME = "CURRENT_TIMESTAMP"
"""A timestamp with this text means the server's current time, as in the legacy API."""
_ISO_8601 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_UTC = re.compile(r"0{4}-00-00[T ]00:00(?::00(?:[.,]0{1,9})?)?[Zz]")
"""The most common formats, with a zero in place of each digit."""
_DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")
_DAY = "((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]{1,9})?)?([Zz]|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)?"
_PATTERN = f"^(000[2-9]|00[1-9][0-9]|0[1-9][0-9]{{2}}|[1-8][0-9]{{3}})-{_DAY}([Tt ]{_TIME})?$"
"""For the OpenAPI document: each match is a valid date. 29 February and the first and last years need `date-time`."""
_EPOCH = datetime(1970, 1, 1)
_ONE_MILLISECOND = timedelta(milliseconds=1)
_ONE_MICROSECOND = timedelta(microseconds=1)
MICROSECONDS_TO_2000 = (datetime(2000, 1, 1) - _EPOCH) // _ONE_MICROSECOND
"""From 1970 to 2000, the year from which PostgreSQL counts."""


def parse_timestamp(value: object) -> datetime:
    """Return a client's datetime as naive UTC, truncated to the microsecond.

    Raises ValueError, with the expected format, for any other text and for years outside 1 to 9999.
    """
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, float) and value.is_integer():  # JSON has one kind of number: 1000.0 is an integer
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return _EPOCH + value * _ONE_MILLISECOND
        except OverflowError:
            raise ValueError(f"{value} milliseconds since 1970 is not in the years 1 to 9999") from None
    raise ValueError(EXPECTED)


def sent_timestamp(value: object) -> datetime:
    """Parse the datetime of a record, which may also be the text SERVER_TIME. Raises as `parse_timestamp` does."""
    return server_time() if value == SERVER_TIME else parse_timestamp(value)


def server_time() -> datetime:
    """Return the current time of this machine, as naive UTC."""
    return datetime.now(UTC).replace(tzinfo=None)


def parse_timestamps(texts: Sequence[str]) -> list[datetime]:
    """Return the datetimes of many texts, like `parse_timestamp` but at a third of its cost for the common formats.

    The digits do not affect whether the format is valid, so each format is checked once.
    """
    forms = set("\n".join(texts).translate(_DIGITS_TO_ZERO).split("\n"))
    if all(map(_UTC.fullmatch, forms)):
        with contextlib.suppress(ValueError):  # a valid format, but not a valid date
            return [datetime.fromisoformat(text[:-1]) for text in texts]
    return list(map(parse_timestamp, texts))


def _from_text(text: str) -> datetime:
    if not _ISO_8601.fullmatch(text):
        raise ValueError(EXPECTED)
    try:
        if text[-1] in "Zz":  # removing the zone from a datetime would cost more than parsing
            text = text[:-1]
        moment = datetime.fromisoformat(text.upper())
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise ValueError(f"in UTC this is not in the years 1 to 9999; {EXPECTED}") from None
    except ValueError as error:
        reason = "a zone is less than 24 hours away from UTC" if "offset" in str(error) else str(error)
        raise ValueError(f"{reason}; {EXPECTED}") from None


def to_microseconds(moment: datetime) -> int:
    """Return naive UTC as microseconds since 1970."""
    return (moment - _EPOCH) // _ONE_MICROSECOND


def from_microseconds(number: int) -> datetime:
    """Return microseconds since 1970 as naive UTC."""
    return _EPOCH + timedelta(microseconds=number)


def format_timestamp(moment: datetime) -> str:
    """Return naive UTC as `YYYY-MM-DD HH:MM:SS`, with `.ffffff` only if the fraction is not zero."""
    return str(moment)


MOMENT_FORMS: list[dict[str, object]] = [
    {
        "type": "string",
        "pattern": _PATTERN,
        "description": "ISO 8601, with `T` or a space between date and time; UTC if it has no zone",
    },
    {"type": "string", "format": "date-time"},
    {
        "type": "integer",
        "minimum": -62135596800000,
        "maximum": 253402300799999,
        "description": "milliseconds since 1970-01-01T00:00:00Z",
    },
]
"""JSON Schema of the formats that `parse_timestamp` accepts."""
_EXAMPLES = ["2024-01-31T13:45:00.123456Z", "2024-01-31 13:45:00", 1706708700123]
_NOW: dict[str, object] = {"const": SERVER_TIME, "description": "The server's current time"}
_SCHEMA_IN = WithJsonSchema({"anyOf": [*MOMENT_FORMS, _NOW], "examples": _EXAMPLES}, mode="validation")
_SCHEMA_IN_OR_NONE = WithJsonSchema(
    {
        "anyOf": [*MOMENT_FORMS, _NOW, {"const": "", "description": "The same as null"}, {"type": "null"}],
        "examples": _EXAMPLES,
    },
    mode="validation",
)


def _moment_or_none(value: object) -> datetime | None:
    return None if value is None or value == "" else sent_timestamp(value)


NullableTimestamp = Annotated[datetime | None, BeforeValidator(_moment_or_none), _SCHEMA_IN_OR_NONE]
"""A datetime field that may be null; an empty string also means null, as in the legacy API."""


class SentDatetime(NamedTuple):
    """A datetime, and its size in the client's JSON in bytes, which counts towards the size of the record."""

    moment: datetime
    json_bytes: int


def _sent(value: object) -> SentDatetime:
    return SentDatetime(sent_timestamp(value), len(orjson.dumps(value)))


SentTimestamp = Annotated[SentDatetime, PlainValidator(_sent), _SCHEMA_IN]
"""A datetime field that also has its size in bytes."""

"""Datetimes, in and out, as SPEC 1 has them. The one place that knows both forms."""

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, NamedTuple

import orjson
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, WithJsonSchema

EXPECTED = (
    "expected an ISO 8601 datetime such as 2024-01-31T13:45:00.123456Z or 2024-01-31 13:45:00, a date, "
    "or an integer of milliseconds since 1970"
)
_ISO_8601 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?)?"
)
_UTC = re.compile(r"0{4}-00-00[T ]00:00(?::00(?:\.0{1,9})?)?[Zz]")
"""The usual forms among these, with a zero for each digit."""
_DIGITS_TO_ZERO = str.maketrans("123456789", "000000000")
_DAY = "((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)"
_TIME = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?([Zz]|[+-]([01][0-9]|2[0-3])(:?[0-5][0-9])?)?"
_PATTERN = f"^(000[2-9]|00[1-9][0-9]|0[1-9][0-9]{{2}}|[1-8][0-9]{{3}})-{_DAY}([Tt ]{_TIME})?$"
"""For the OpenAPI document: what it matches exists. 29 February and the outermost years it leaves to date-time."""
_EPOCH = datetime(1970, 1, 1)
_ONE_MILLISECOND = timedelta(milliseconds=1)


def parse_timestamp(value: object) -> datetime:
    """A datetime as a client sends it -> naive UTC, to the microsecond (further digits are cut off).

    Raises ValueError, with what would be right, for anything else, and for times outside the years 1 to 9999.
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


def parse_timestamps(texts: Sequence[str]) -> list[datetime]:
    """What `parse_timestamp` gives, or raises, for each of many texts, at a third of its cost for the usual ones.

    Whether a text is of the right form does not depend on which digits it holds, so each form is looked at once.
    """
    forms = set("\n".join(texts).translate(_DIGITS_TO_ZERO).split("\n"))
    if all(map(_UTC.fullmatch, forms)):
        with contextlib.suppress(ValueError):  # the right form, and yet no date
            return [datetime.fromisoformat(text[:-1]) for text in texts]
    return list(map(parse_timestamp, texts))


def _from_text(text: str) -> datetime:
    if not _ISO_8601.fullmatch(text):
        raise ValueError(EXPECTED)
    try:
        if text[-1] in "Zz":  # taking a zone off a datetime costs more than all the rest
            text = text[:-1]
        moment = datetime.fromisoformat(text.upper())
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except OverflowError:
        raise ValueError(f"in UTC this is not in the years 1 to 9999; {EXPECTED}") from None
    except ValueError as error:
        reason = "a zone is less than 24 hours away from UTC" if "offset" in str(error) else str(error)
        raise ValueError(f"{reason}; {EXPECTED}") from None


def format_timestamp(moment: datetime) -> str:
    """Naive UTC -> `YYYY-MM-DD HH:MM:SS`, with `.ffffff` only where it is not zero."""
    return str(moment)


_SCHEMA_IN = WithJsonSchema(
    {
        "anyOf": [
            {
                "type": "string",
                "pattern": _PATTERN,
                "description": "ISO 8601, `T` or a space between date and time; UTC unless it says",
            },
            {"type": "string", "format": "date-time"},
            {
                "type": "integer",
                "minimum": -62135596800000,
                "maximum": 253402300799999,
                "description": "milliseconds since 1970-01-01T00:00:00Z",
            },
        ],
        "examples": ["2024-01-31T13:45:00.123456Z", "2024-01-31 13:45:00", 1706708700123],
    },
    mode="validation",
)

Timestamp = Annotated[
    datetime,
    BeforeValidator(parse_timestamp),
    PlainSerializer(format_timestamp, return_type=str),
    _SCHEMA_IN,
    WithJsonSchema({"type": "string", "examples": ["2024-01-31 13:45:00.123456"]}, mode="serialization"),
]
"""A datetime field of a Pydantic model: parsed and written as SPEC 1 says."""


class Sent(NamedTuple):
    """A datetime, and how many bytes of JSON its sender took to write it: they count for the size of a record."""

    moment: datetime
    json_bytes: int


def _sent(value: object) -> Sent:
    return Sent(parse_timestamp(value), len(orjson.dumps(value)))


SentTimestamp = Annotated[Sent, PlainValidator(_sent), _SCHEMA_IN]
"""The same of a record that is only ever read."""

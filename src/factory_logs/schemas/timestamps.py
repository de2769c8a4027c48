"""Datetimes, in and out, as SPEC 1 has them. The one place that knows both forms."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

EXPECTED = (
    "expected an ISO 8601 datetime such as 2024-01-31T13:45:00.123456Z or 2024-01-31 13:45:00, a date, "
    "or an integer of milliseconds since 1970"
)
_ISO_8601 = re.compile(
    r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?", re.ASCII | re.IGNORECASE
)
_EPOCH = datetime(1970, 1, 1)
_ONE_MILLISECOND = timedelta(milliseconds=1)


def parse_timestamp(value: object) -> datetime:
    """A datetime as a client sends it -> naive UTC, to the microsecond (further digits are cut off).

    Raises ValueError, with what would be right, for anything else, and for times outside the years 1 to 9999.
    """
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, int) and not isinstance(value, bool):
        try:
            return _EPOCH + value * _ONE_MILLISECOND
        except OverflowError:
            raise ValueError(f"{value} milliseconds since 1970 is not in the years 1 to 9999") from None
    raise ValueError(EXPECTED)


def _from_text(text: str) -> datetime:
    if not _ISO_8601.fullmatch(text):
        raise ValueError(EXPECTED)
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{error}; {EXPECTED}") from None


def format_timestamp(moment: datetime) -> str:
    """Naive UTC -> `YYYY-MM-DD HH:MM:SS`, with `.ffffff` only where it is not zero."""
    return str(moment)


Timestamp = Annotated[
    datetime,
    BeforeValidator(parse_timestamp),
    PlainSerializer(format_timestamp, return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {
                    "type": "string",
                    "description": "ISO 8601, `T` or a space between date and time; UTC unless it says",
                },
                {"type": "integer", "description": "milliseconds since 1970-01-01T00:00:00Z"},
            ],
            "examples": ["2024-01-31T13:45:00.123456Z", "2024-01-31 13:45:00", 1706708700123],
        },
        mode="validation",
    ),
    WithJsonSchema({"type": "string", "examples": ["2024-01-31 13:45:00.123456"]}, mode="serialization"),
]
"""A datetime field of a Pydantic model: parsed and written as SPEC 1 says."""

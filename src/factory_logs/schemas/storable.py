"""Whether a log can be stored (SPEC 1), in the words of this API's errors.

One check for the service and for the device client: what a device accepts onto its disk must not be refused hours
later by the service.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.json_values import canonical_json, quickly_storable, unstorable

_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_pattern_mismatch": "expected exactly 15 digits",
}

LONGEST_APP_NAME = 255
_BYTES_OF_A_CHARACTER = len(r"\u0001")
ROOM = LONGEST_APP_NAME * _BYTES_OF_A_CHARACTER + len(
    '{"app_name":"","product_imei":"352099001761481","repair_id":-9223372036854775808,'
    '"timestamp":"2024-01-31T13:45:00.123456789+00:00","tags":,"fields":}'
)
"""What a record with a `repair_id` of 64 bits takes beside `tags` and `fields`, at most; see `record_bytes`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one record may hold: compact JSON bytes, and levels of nesting in `tags` and `fields`."""

    max_record_bytes: int
    max_nesting: int


def storable_json(log: FactoryLogIn, max_nesting: int) -> tuple[bytes | None, bytes | None]:
    """`tags` and `fields` of a valid model as JSON text, None for SQL null.

    Raises BadRequestError naming each place whose string or JSON value cannot be stored. What it all takes together
    is left to the caller.
    """
    values = (("app_name", log.app_name), ("tags", log.tags), ("fields", log.fields))
    texts = [quickly_storable(value, max_nesting) for _, value in values]
    if None in texts:
        faults = [fault for place, value in values for fault in unstorable(value, place, max_nesting)]
        if faults:
            raise BadRequestError("Validation failed", faults)
    tags = None if log.tags is None else texts[1] or canonical_json(log.tags)
    fields = None if log.fields is None else texts[2] or canonical_json(log.fields)
    return tags, fields


def record_bytes(
    app_name: str, imei: str | None, repair_id: int | None, timestamp: int, tags: bytes | None, fields: bytes | None
) -> int:
    """The size of a record: what it takes as compact JSON, without metadata and without what is null.

    `timestamp` is what that takes, as its sender wrote it; `tags` and `fields` are JSON text.
    """
    size = len('{"app_name":,"timestamp":}') + len(orjson.dumps(app_name)) + timestamp
    if imei is not None:
        size += len(',"product_imei":""') + len(imei)
    if repair_id is not None:
        size += len(',"repair_id":') + len(str(repair_id))
    if tags is not None:
        size += len(',"tags":') + len(tags)
    if fields is not None:
        size += len(',"fields":') + len(fields)
    return size


def too_large(limit: int) -> BadRequestError:
    """The error of a record over `limit` bytes."""
    return BadRequestError(
        "Validation failed", [FieldError("", f"the record is over the limit of {limit} bytes of compact JSON")]
    )


def field_errors(error: ValidationError) -> Iterator[FieldError]:
    """Pydantic's errors in the words of this API."""
    for detail in error.errors(include_url=False, include_input=False):
        yield FieldError(".".join(printable(str(part)) for part in detail["loc"]), _message(detail))


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return _MESSAGES.get(detail["type"], detail["msg"])


def printable(name: str) -> str:
    """A field's name that can stand in a message, whatever characters a client put into it."""
    return name.encode("utf-8", "backslashreplace").decode()

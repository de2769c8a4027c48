"""Whether a log can be stored (SPEC 1), in the words of this API's errors.

One check for the service and for the device client: what a device accepts onto its disk must not be refused hours
later by the service.
"""

from collections.abc import Iterator
from dataclasses import dataclass

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

REST_OF_RECORD_BYTES = len(
    '{"app_name":"","product_imei":"352099001761481","repair_id":-2147483648,"tags":,"fields":,'
    '"timestamp":"2024-01-31 13:45:00.123456"}'
)
"""What a record takes as compact JSON beside its `app_name`, `tags` and `fields`."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one record may hold: compact JSON bytes, and levels of nesting in `tags` and `fields`."""

    max_record_bytes: int
    max_nesting: int


def storable_json(log: FactoryLogIn, limits: Limits) -> tuple[bytes | None, bytes | None]:
    """`tags` and `fields` of a valid model as JSON text, None for SQL null.

    Raises BadRequestError naming each place whose string, JSON value or size cannot be stored.
    """
    values = (("app_name", log.app_name), ("tags", log.tags), ("fields", log.fields))
    texts = [quickly_storable(value, limits.max_nesting) for _, value in values]
    if None in texts:
        faults = [fault for place, value in values for fault in unstorable(value, place, limits.max_nesting)]
        if faults:
            raise BadRequestError("Validation failed", faults)
    tags = None if log.tags is None else texts[1] or canonical_json(log.tags)
    fields = None if log.fields is None else texts[2] or canonical_json(log.fields)
    size = REST_OF_RECORD_BYTES + len(log.app_name.encode()) + len(tags or b"") + len(fields or b"")
    if size > limits.max_record_bytes:
        raise too_large(limits.max_record_bytes)
    return tags, fields


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

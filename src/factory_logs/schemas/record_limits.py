"""The limits of a log (docs/reference/http-api.md#records): size, nesting and values, with the errors for larger ones.

The service and the device client share these checks, so that the service does not reject a log that a device stored
hours before.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import orjson
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.schemas.factory_log import EXPECTED_IMEI, LONGEST_APP_NAME, FactoryLogIn
from factory_logs.schemas.json_values import canonical_json, fast_storable_text, storage_errors

_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_pattern_mismatch": EXPECTED_IMEI,
}

_BYTES_OF_A_CHARACTER = len(r"\u0001")
OTHER_MEMBERS_BYTES = LONGEST_APP_NAME * _BYTES_OF_A_CHARACTER + len(
    '{"app_name":"","product_imei":"352099001761481","repair_id":-9223372036854775808,'
    '"timestamp":"2024-01-31T13:45:00.123456789+00:00","tags":,"fields":}'
)
"""The maximum size of a record without `tags` and `fields`, in bytes; see `record_bytes`."""


@dataclass(frozen=True, slots=True)
class RecordLimits:
    """The limits of one record: its bytes as compact JSON, and the levels of nesting in `tags` and `fields`.

    At most `max_errors` errors of a record are listed, because a record may have millions.
    """

    max_record_bytes: int
    max_nesting: int
    max_errors: int = 100

    def check_size(self, size: int) -> None:
        """Raise BadRequestError if the size, as `record_bytes` returns it, is over the limit."""
        if size > self.max_record_bytes:
            message = f"the record is over the limit of {self.max_record_bytes} bytes of compact JSON"
            raise BadRequestError("Validation failed", [FieldError("", message)])

    def surely_allow(self, json_bytes: int) -> bool:
        """Return whether a record whose `tags` and `fields` have this size is within the limit, for any values of its
        other members."""
        return json_bytes + OTHER_MEMBERS_BYTES <= self.max_record_bytes


def storable_json(log: FactoryLogIn, max_nesting: int, max_errors: int = 100) -> tuple[bytes | None, bytes | None]:
    """Return `tags` and `fields` of a valid model as JSON text, or None for SQL null.

    Raises BadRequestError that lists the path of each string or JSON value that cannot be stored. It does not check the
    size of the record.
    """
    values = (("app_name", log.app_name), ("tags", log.tags), ("fields", log.fields))
    texts = [fast_storable_text(value, max_nesting) for _, value in values]
    if None in texts:
        found = (error for path, value in values for error in storage_errors(value, path, max_nesting))
        errors = list(islice(found, max_errors))
        if errors:
            raise BadRequestError("Validation failed", errors)
    tags = None if log.tags is None else texts[1] or canonical_json(log.tags)
    fields = None if log.fields is None else texts[2] or canonical_json(log.fields)
    return tags, fields


def record_bytes(
    app_name: str, imei: str | None, repair_id: int | None, timestamp: int, tags: bytes | None, fields: bytes | None
) -> int:
    """Return the size of a record: its compact JSON without metadata and nulls.

    `timestamp` is the size of the timestamp as its client sent it; `tags` and `fields` are JSON text.
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


def field_errors(error: ValidationError) -> Iterator[FieldError]:
    """Yield Pydantic's errors with the messages of this API."""
    for detail in error.errors(include_url=False, include_input=False):
        yield FieldError(".".join(str(part) for part in detail["loc"]), _message(detail))


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return _MESSAGES.get(detail["type"], detail["msg"])

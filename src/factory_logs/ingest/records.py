"""From the bytes a client sent to rows that can be stored, or to errors that name each place (SPEC 1)."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.json_values import canonical_json, unstorable

Model = TypeVar("Model", bound=BaseModel)
_LOG = TypeAdapter(FactoryLogIn)
_MESSAGES = {
    "missing": "is required",
    "extra_forbidden": "is not a known field",
    "string_pattern_mismatch": "expected exactly 15 digits",
}


@dataclass(frozen=True, slots=True)
class NewLog:
    """A valid log, ready to be stored. `tags` and `fields` are JSON text, None for SQL null."""

    app_name: str
    product_imei: str | None
    repair_id: int | None
    timestamp: datetime
    tags: str | None
    fields: str | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one record may hold: compact JSON bytes, and levels of nesting in `tags` and `fields`."""

    max_record_bytes: int
    max_nesting: int


def parse_log(body: bytes, limits: Limits) -> NewLog:
    """One log from its JSON text. Raises BadRequestError naming every place at fault."""
    try:
        return admit(_LOG.validate_json(body), limits)
    except ValidationError as error:
        raise rejected(error, body, limits) from None


def validate_log(record: object, limits: Limits) -> NewLog:
    """One log from an already decoded object. Raises BadRequestError."""
    try:
        return admit(_LOG.validate_python(record), limits)
    except ValidationError as error:
        raise BadRequestError("Validation failed", list(field_errors(error))) from None


def admit(log: FactoryLogIn, limits: Limits) -> NewLog:
    """The row of a valid model, if its strings, JSON values and size can be stored; else BadRequestError."""
    faults = [
        fault
        for place, value in (("app_name", log.app_name), ("tags", log.tags), ("fields", log.fields))
        for fault in unstorable(value, place, limits.max_nesting)
    ]
    if faults:
        raise BadRequestError("Validation failed", faults)
    tags, fields = _json_text(log.tags), _json_text(log.fields)
    _check_size(log, len(tags or b"") + len(fields or b""), limits.max_record_bytes)
    return NewLog(
        log.app_name,
        log.product_imei,
        log.repair_id,
        log.timestamp,
        None if tags is None else tags.decode(),
        None if fields is None else fields.decode(),
    )


def _json_text(value: object) -> bytes | None:
    return None if value is None else canonical_json(value)


def _check_size(log: FactoryLogIn, json_bytes: int, limit: int) -> None:
    rest = len(log.app_name.encode()) + len(
        '{"app_name":"","product_imei":"352099001761481","repair_id":-2147483648,"tags":,"fields":,'
        '"timestamp":"2024-01-31 13:45:00.123456"}'
    )
    if json_bytes + rest > limit:
        raise BadRequestError(
            "Validation failed", [FieldError("", f"the record is over the limit of {limit} bytes of compact JSON")]
        )


def parse_model(model: type[Model], body: bytes) -> Model:
    """Any other resource from its JSON text. Raises BadRequestError."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if any(detail["type"] == "json_invalid" for detail in error.errors(include_url=False, include_input=False)):
            raise BadRequestError("Unable to decode data") from None
        raise BadRequestError("Validation failed", list(field_errors(error))) from None


def rejected(error: ValidationError, body: bytes, limits: Limits) -> BadRequestError:
    """The error for a body that Pydantic refused.

    Pydantic's JSON parser stops at a lone surrogate or at deep nesting without saying in which field; the standard
    library's reads on, so the place can be named.
    """
    errors = list(field_errors(error))
    if not any(detail["type"] == "json_invalid" for detail in error.errors(include_url=False, include_input=False)):
        return BadRequestError("Validation failed", errors)
    faults = list(_faults_beyond_the_parser(body, limits))
    if faults:
        return BadRequestError("Validation failed", faults)
    return BadRequestError(f"Unable to decode data: {errors[0].message}")


def _faults_beyond_the_parser(body: bytes, limits: Limits) -> Iterator[FieldError]:
    try:
        record: Any = json.loads(body)
    except RecursionError:
        yield FieldError("", f"arrays and objects may nest {limits.max_nesting} deep")
        return
    except ValueError:
        return
    if isinstance(record, dict):
        for key, value in record.items():
            yield from unstorable(value, _printable(key), limits.max_nesting)


def field_errors(error: ValidationError) -> Iterator[FieldError]:
    """Pydantic's errors in the words of this API."""
    for detail in error.errors(include_url=False, include_input=False):
        yield FieldError(".".join(_printable(str(part)) for part in detail["loc"]), _message(detail))


def _message(detail: ErrorDetails) -> str:
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return _MESSAGES.get(detail["type"], detail["msg"])


def _printable(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()

"""Validate records against their schemas (docs/reference/http-api.md#records).

Return rows that can be stored, or raise errors with the path of each bad value.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.json_values import storage_errors
from factory_logs.schemas.record_limits import RecordLimits, record_bytes, storable_json
from factory_logs.schemas.record_limits import field_errors as field_errors

Model = TypeVar("Model", bound=BaseModel)
_LOG = TypeAdapter(FactoryLogIn).validator
_NAMES = frozenset(FactoryLogIn.model_fields)


class NewLog(NamedTuple):
    """A valid log, ready to be stored. `tags` and `fields` are JSON text, or None for SQL null."""

    app_name: str
    product_imei: str | None
    repair_id: int | None
    timestamp: datetime
    tags: str | None
    fields: str | None


def parse_log(body: bytes, limits: RecordLimits) -> NewLog:
    """Return one log from its JSON text. Raises BadRequestError that lists every invalid path."""
    try:
        return admit(_LOG.validate_json(body), limits)
    except ValidationError as error:
        if error.error_count() > len(_NAMES) + limits.max_errors:
            return validate_log(json.loads(body), limits)
        raise rejected(error, body, limits) from None


def validate_log(record: object, limits: RecordLimits) -> NewLog:
    """Return one log from a decoded object. Raises BadRequestError."""
    if isinstance(record, dict) and len(record) > len(_NAMES) + limits.max_errors:
        record = _with_few_unknown_names(record, limits.max_errors)
    try:
        return admit(_LOG.validate_python(record), limits)
    except ValidationError as error:
        raise BadRequestError("Validation failed", list(field_errors(error))) from None


def _with_few_unknown_names(record: dict[str, Any], most: int) -> dict[str, Any]:
    """Return the record without its unknown names beyond the first `most`: Pydantic creates an error object for each
    name, and a record may have millions."""
    unknown = islice((name for name in record if name not in _NAMES), most)
    return {name: record[name] for name in [*(record.keys() & _NAMES), *unknown]}


def admit(log: FactoryLogIn, limits: RecordLimits) -> NewLog:
    """Return the row for a valid model. Raises BadRequestError if a string, value or the size cannot be stored."""
    tags, fields = storable_json(log, limits.max_nesting, limits.max_errors)
    moment, moment_bytes = log.timestamp
    limits.check_size(record_bytes(log.app_name, log.product_imei, log.repair_id, moment_bytes, tags, fields))
    return NewLog(
        log.app_name,
        log.product_imei,
        log.repair_id,
        moment,
        None if tags is None else tags.decode(),
        None if fields is None else fields.decode(),
    )


def parse_model(model: type[Model], body: bytes) -> Model:
    """Return a record of another resource from its JSON text. Raises BadRequestError."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        if any(detail["type"] == "json_invalid" for detail in error.errors(include_url=False, include_input=False)):
            raise BadRequestError("Unable to decode data") from None
        raise BadRequestError("Validation failed", list(field_errors(error))) from None


def rejected(error: ValidationError, body: bytes, limits: RecordLimits) -> BadRequestError:
    """Return the error for a body that Pydantic has rejected.

    Pydantic's JSON parser stops at a lone surrogate or at deep nesting without naming the field. The parser of the
    standard library continues, so the error can name the path.
    """
    errors = list(field_errors(error))
    if not any(detail["type"] == "json_invalid" for detail in error.errors(include_url=False, include_input=False)):
        return BadRequestError("Validation failed", errors)
    found = list(islice(_errors_beyond_the_parser(body, limits), limits.max_errors))
    if found:
        return BadRequestError("Validation failed", found)
    return BadRequestError(f"Unable to decode data: {errors[0].message}")


def _errors_beyond_the_parser(body: bytes, limits: RecordLimits) -> Iterator[FieldError]:
    try:
        record: Any = json.loads(body)
    except RecursionError:
        yield FieldError("", f"arrays and objects may nest {limits.max_nesting} deep")
        return
    except ValueError:
        return
    if isinstance(record, dict):
        for key, value in record.items():
            yield from storage_errors(value, key, limits.max_nesting)

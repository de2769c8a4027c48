"""From the bytes a client sent to rows that can be stored, or to errors that name each place (SPEC 1)."""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.json_values import unstorable
from factory_logs.schemas.storable import Limits as Limits
from factory_logs.schemas.storable import field_errors as field_errors
from factory_logs.schemas.storable import printable, record_bytes, storable_json, too_large

Model = TypeVar("Model", bound=BaseModel)
_LOG = TypeAdapter(FactoryLogIn).validator


class NewLog(NamedTuple):
    """A valid log, ready to be stored. `tags` and `fields` are JSON text, None for SQL null."""

    app_name: str
    product_imei: str | None
    repair_id: int | None
    timestamp: datetime
    tags: str | None
    fields: str | None


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
    tags, fields = storable_json(log, limits.max_nesting)
    moment, moment_bytes = log.timestamp
    size = record_bytes(log.app_name, log.product_imei, log.repair_id, moment_bytes, tags, fields)
    if size > limits.max_record_bytes:
        raise too_large(limits.max_record_bytes)
    return NewLog(
        log.app_name,
        log.product_imei,
        log.repair_id,
        moment,
        None if tags is None else tags.decode(),
        None if fields is None else fields.decode(),
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
            yield from unstorable(value, printable(key), limits.max_nesting)

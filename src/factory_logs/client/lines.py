"""From what a script measured to the NDJSON line that will be sent, checked as the server checks it (SPEC 1)."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn

import orjson
from pydantic import TypeAdapter, ValidationError

from factory_logs.client.errors import InvalidLogError
from factory_logs.errors import BadRequestError, FieldError
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.storable import Limits, field_errors, storable_json, too_large
from factory_logs.schemas.timestamps import format_timestamp

_LOG = TypeAdapter(FactoryLogIn)
_INVALID = "The log is not valid"


def line_of(record: Mapping[str, object], limits: Limits) -> bytes:
    """A record as one line of NDJSON, without the line's end. Raises InvalidLogError naming every place at fault.

    `timestamp` may be a datetime (UTC where it has no zone) beside the forms of SPEC 1; tuples become arrays.
    """
    faults: list[FieldError] = []
    plain = {name: _plain(value, name, limits.max_nesting, faults) for name, value in record.items()}
    if faults:
        raise InvalidLogError(_INVALID, faults)
    try:
        log = _LOG.validate_python(plain)
        tags, fields = storable_json(log, limits.max_nesting)
    except ValidationError as error:
        raise InvalidLogError(_INVALID, list(field_errors(error))) from None
    except BadRequestError as error:
        raise InvalidLogError(_INVALID, error.errors) from None
    line = orjson.dumps(dict(_members(log, tags, fields)))
    if len(line) > limits.max_record_bytes:
        raise InvalidLogError(_INVALID, too_large(limits.max_record_bytes).errors)
    return line


def line_of_json(text: bytes, defaults: Mapping[str, object], limits: Limits) -> bytes:
    """A JSON object as such a line, with `defaults` for what it does not name. Raises InvalidLogError."""
    try:
        record = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidLogError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InvalidLogError("expected a JSON object")
    return line_of({**defaults, **record}, limits)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _members(log: FactoryLogIn, tags: bytes | None, fields: bytes | None) -> Iterator[tuple[str, object]]:
    yield "app_name", log.app_name
    if log.product_imei is not None:
        yield "product_imei", log.product_imei
    if log.repair_id is not None:
        # A number of any length is JSON; the server says that there is no such repair.
        yield "repair_id", orjson.Fragment(str(log.repair_id))
    yield "timestamp", format_timestamp(log.timestamp.moment)
    if tags is not None:
        yield "tags", orjson.Fragment(tags)
    if fields is not None:
        yield "fields", orjson.Fragment(fields)


def _plain(value: Any, place: str, depth: int, faults: list[FieldError]) -> Any:
    """The value in JSON's own types. Beyond `depth` it is left alone: it is refused there for its nesting."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict | list | tuple):
        return _plain_inside(value, place, depth, faults) if depth >= 0 else []
    if isinstance(value, datetime) and place == "timestamp":
        moment = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
        return moment.isoformat()
    faults.append(FieldError(place, f"{type(value).__name__} is no JSON value; send a string, a number, or the like"))
    return None


def _plain_inside(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], place: str, depth: int, faults: list[FieldError]
) -> Any:
    if isinstance(value, dict):
        faults.extend(FieldError(place, f"the key {key!r} is no string") for key in value if not isinstance(key, str))
        return {str(key): _plain(item, f"{place}.{key}", depth - 1, faults) for key, item in value.items()}
    return [_plain(item, f"{place}.{index}", depth - 1, faults) for index, item in enumerate(value)]

"""Convert the values of a log to the line of NDJSON that the spool stores and the sender sends.

The line is validated by the server's own schema.
"""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from factory_logs.client.errors import InvalidLogError
from factory_logs.errors import BadRequestError, FieldError
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.json_values import strict_json
from factory_logs.schemas.record_limits import RecordLimits, field_errors, storable_json
from factory_logs.schemas.timestamps import format_timestamp

_LOG = TypeAdapter(FactoryLogIn)
_INVALID = "The log is not valid"
MOST_DIGITS = 100
LONGEST_INTEGER_BITS = 4096
"""A limit lower than Python's own limit: Python does not format integers of more than 4,300 digits."""


def log_line(record: Mapping[str, object], limits: RecordLimits) -> bytes:
    """Return a record as one line of NDJSON, without line end. Raises InvalidLogError, which lists every invalid field.

    `timestamp` may be a datetime, or text in a format of the API; a naive datetime is local time. Tuples become arrays.
    """
    errors: list[FieldError] = []
    plain = {name: _plain(value, name, limits.max_nesting, errors) for name, value in record.items()}
    if errors:
        raise InvalidLogError(_INVALID, errors)
    try:
        log = _LOG.validate_python(plain)
        tags, fields = storable_json(log, limits.max_nesting)
        line = orjson.dumps(dict(_members(log, tags, fields)))
        limits.check_size(len(line))
    except ValidationError as error:
        raise InvalidLogError(_INVALID, list(field_errors(error))) from None
    except BadRequestError as error:
        raise InvalidLogError(_INVALID, error.errors) from None
    return line


def log_line_from_json(text: bytes, defaults: Mapping[str, object], limits: RecordLimits) -> bytes:
    """Return the line for a log given as JSON text, with `defaults` for missing members. Raises InvalidLogError."""
    try:
        record = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise InvalidLogError(f"not JSON: {error}") from None
    if not isinstance(record, dict):
        raise InvalidLogError("expected a JSON object")
    return log_line({**defaults, **record}, limits)


def _members(log: FactoryLogIn, tags: bytes | None, fields: bytes | None) -> Iterator[tuple[str, object]]:
    yield "app_name", log.app_name
    if log.product_imei is not None:
        yield "product_imei", log.product_imei
    if log.repair_id is not None:
        # JSON allows integers of any length; the server rejects this one, because no such repair exists.
        yield "repair_id", orjson.Fragment(str(log.repair_id))
    yield "timestamp", format_timestamp(log.timestamp.moment)
    if tags is not None:
        yield "tags", orjson.Fragment(tags)
    if fields is not None:
        yield "fields", orjson.Fragment(fields)


def _plain(value: Any, path: str, depth: int, errors: list[FieldError]) -> Any:
    """Return the value in JSON's own types. Arrays and objects nested deeper than `depth` become empty lists, because
    the log is rejected anyway."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        if value.bit_length() > LONGEST_INTEGER_BITS:
            errors.append(FieldError(path, "an integer must fit in 64 bits"))
            return None
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, dict | list | tuple):
        return _plain_inside(value, path, depth, errors) if depth >= 0 else []
    if isinstance(value, datetime) and path == "timestamp":
        return _in_utc(value, errors)
    if isinstance(value, Decimal):
        return _plain(_number(value), path, depth, errors)
    if _is_numpy(value):
        return _plain(value.tolist(), path, depth, errors)
    errors.append(FieldError(path, f"{_type_name(value)} is not a JSON value; send a string or a number, for example"))
    return None


def _number(value: Decimal) -> int | float:
    """Return an integer unchanged, and any other number as the nearest double, including NaN and infinity."""
    if value.is_nan():
        return math.nan
    if value.is_finite() and isinstance(exponent := value.as_tuple().exponent, int) and 0 <= exponent < MOST_DIGITS:
        return int(value)
    return float(value)


def _is_numpy(value: Any) -> bool:
    """Return whether the value is a numpy scalar or array of booleans, integers or floats of up to 64 bits."""
    dtype = getattr(value, "dtype", None)
    return (
        type(value).__module__.partition(".")[0] == "numpy"
        and getattr(dtype, "kind", "") in ("b", "i", "u", "f")
        and getattr(dtype, "itemsize", 0) <= 8
    )


def _type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _in_utc(moment: datetime, errors: list[FieldError]) -> str | None:
    """Return the time in UTC as text. A naive datetime is local time, as returned by `datetime.now()`."""
    try:
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    except (OverflowError, ValueError, OSError):
        errors.append(FieldError("timestamp", "in UTC this is not in the years 1 to 9999"))
        return None


def _plain_inside(
    value: dict[Any, Any] | list[Any] | tuple[Any, ...], path: str, depth: int, errors: list[FieldError]
) -> Any:
    if isinstance(value, dict):
        errors.extend(FieldError(path, f"the key {key!r} is not a string") for key in value if not isinstance(key, str))
        return {str(key): _plain(item, f"{path}.{key}", depth - 1, errors) for key, item in value.items()}
    return [_plain(item, f"{path}.{index}", depth - 1, errors) for index, item in enumerate(value)]

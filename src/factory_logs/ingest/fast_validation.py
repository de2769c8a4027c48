"""Validate ordinary logs, one or many at a time, at a fraction of the cost of their Pydantic schema.

Only the schema (schemas/factory_log.py) defines which logs are accepted. A function here returns exactly the rows that
the schema would return, or None. After a None the schema decides, so every error comes from the schema. All functions
apply the same rules, and tests/ingest/test_fast_validation.py compares them with the schema. `python -m
benchmarks.hot_path` shows what this saves for a single log, `python -m benchmarks.writes` for batches.

The input is the output of orjson, which has already rejected lone surrogates, NaN and invalid UTF-8. It decodes an
integer beyond 64 bits as a large float, which the check of floats detects.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import NewLog, parse_log
from factory_logs.schemas.factory_log import IMEI_DIGITS, LONGEST_APP_NAME, FactoryLogIn
from factory_logs.schemas.json_values import all_surely_canonical, surely_canonical
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.schemas.timestamps import parse_timestamp, parse_timestamps, to_microseconds

FIELDS = frozenset(NewLog._fields)
METADATA = frozenset(FactoryLogIn.model_fields) - FIELDS
_new_log = NewLog._make


def read_log(text: bytes, limits: RecordLimits) -> NewLog:
    """Return one log from its JSON text. Raises the same errors as `parse_log`."""
    return fast_log_from_text(text, limits) or parse_log(text, limits)


def decode_json(text: bytes | bytearray) -> Any:
    """Return the value of a JSON text; None for null and for text that orjson cannot decode."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def fast_log_from_text(text: bytes | bytearray, limits: RecordLimits) -> NewLog | None:
    """Return the row for one log's JSON text, or None if the schema must decide."""
    return fast_log(decode_json(text), limits)


def fast_log(record: Any, limits: RecordLimits) -> NewLog | None:
    """Return the row for one decoded log, or None if the schema must decide."""
    if type(record) is not dict or not _has_known_names(record):
        return None
    get = record.get
    app_name, imei, repair_id = get("app_name"), get("product_imei"), get("repair_id")
    tags, fields = get("tags"), get("fields")
    if type(app_name) is not str or not _is_app_name(app_name):
        return None
    if imei is not None and not (type(imei) is str and len(imei) == IMEI_DIGITS and _are_digits(imei)):
        return None
    if repair_id is not None and type(repair_id) is not int:
        return None
    try:
        timestamp = parse_timestamp(get("timestamp"))
        tags_text, fields_text = _json_text(tags), _json_text(fields)
    except (ValueError, orjson.JSONEncodeError):  # a datetime is invalid, or the nesting is too deep for orjson
        return None
    texts = tags_text + fields_text
    if not limits.surely_allow(len(texts)) or not surely_canonical((tags, fields), texts, limits.max_nesting):
        return None
    return _new_log((app_name, imei, repair_id, timestamp, tags_text.decode() or None, fields_text.decode() or None))


def fast_logs(records: list[Any], limits: RecordLimits) -> NewLogs | None:
    """Return the rows for many decoded logs, or None if they must be validated one by one.

    The checks run column by column: `set` and `join` check a value in a tenth of the time of a Python statement.
    """
    if not records:
        return NewLogs()
    if _types(records) != {dict} or not _have_known_names(records):
        return None
    app_names = [record.get("app_name") for record in records]
    imeis = [record.get("product_imei") for record in records]
    repair_ids = [record.get("repair_id") for record in records]
    if _types(app_names) != {str} or not all(map(_is_app_name, set(app_names))):
        return None
    if not (_are_imeis([imei for imei in imeis if imei is not None]) and _types(repair_ids) <= {int, type(None)}):
        return None
    tags = [record.get("tags") for record in records]
    fields = [record.get("fields") for record in records]
    try:
        timestamps = _parse_timestamps([record.get("timestamp") for record in records])
        # Copied at once, because each text of orjson keeps a buffer of at least 4 KB until it is copied.
        tags_texts = [b"" if value is None else b"%b" % orjson.dumps(value) for value in tags]
        fields_texts = [b"" if value is None else b"%b" % orjson.dumps(value) for value in fields]
    except (ValueError, orjson.JSONEncodeError):  # a datetime is invalid, or the nesting is too deep for orjson
        return None
    texts = list(map(bytes.__add__, tags_texts, fields_texts))
    if not limits.surely_allow(max(map(len, texts))):
        return None
    if not all_surely_canonical((tags, fields), texts, limits.max_nesting):
        return None
    moments = list(map(to_microseconds, timestamps))
    return NewLogs(app_names, imeis, repair_ids, moments, _json_or_null(tags_texts), _json_or_null(fields_texts))


def _has_known_names(record: dict[str, Any]) -> bool:
    """Return whether each name is a field, or is metadata with a plain value. Metadata is ignored.

    The parser of the schema must check metadata that is nested.
    """
    if FIELDS.issuperset(record):
        return True
    return all(name in METADATA and not isinstance(record[name], dict | list) for name in record.keys() - FIELDS)


def _have_known_names(records: list[dict[str, Any]]) -> bool:
    names = frozenset().union(*set(map(tuple, records)))
    return names <= FIELDS or all(map(_has_known_names, records))


def _is_app_name(text: str) -> bool:
    return 0 < len(text) <= LONGEST_APP_NAME and "\0" not in text


def _are_digits(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _are_imeis(values: Sequence[Any]) -> bool:
    if not values:
        return True
    return _types(values) == {str} and set(map(len, values)) == {IMEI_DIGITS} and _are_digits("".join(values))


def _json_text(value: Any) -> bytes:
    return b"" if value is None else orjson.dumps(value)


def _types(values: Sequence[object]) -> set[type]:
    return set(map(type, values))


def _parse_timestamps(values: Sequence[Any]) -> list[datetime]:
    if _types(values) == {str}:
        return parse_timestamps(values)
    return list(map(parse_timestamp, values))


def _json_or_null(texts: Sequence[bytes]) -> list[bytes | None]:
    return [text or None for text in texts]

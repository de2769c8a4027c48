"""Reading one decoded log at a fraction of what its Pydantic schema costs.

The schema (schemas/factory_log.py) stays the one description of what is accepted. This reading either gives exactly the
row that the schema gives, or it declines and the schema decides; it never refuses anything itself, so every error is
the schema's. tests/ingest/test_quick_reading.py holds the two against each other.

It reads what orjson has decoded, which has already refused lone surrogates, NaN and invalid UTF-8. Of what is left to
check, an integer beyond 64 bits is the one that orjson hides, as a large float.
"""

from typing import Any

import orjson

from factory_logs.ingest.records import Limits, NewLog, parse_log
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.json_values import surely_canonical
from factory_logs.schemas.storable import LONGEST_APP_NAME, ROOM
from factory_logs.schemas.timestamps import parse_timestamp

FIELDS = frozenset(NewLog._fields)
METADATA = frozenset(FactoryLogIn.model_fields) - FIELDS
_new_log = NewLog._make


def read_log(text: bytes, limits: Limits) -> NewLog:
    """One log from its JSON text, by the schema only where that is needed. Raises BadRequestError as parse_log does."""
    return quickly_read(text, limits) or parse_log(text, limits)


def quickly_decoded(text: bytes) -> Any:
    """A JSON text as Python values; None where orjson cannot read it, or it is null."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None


def quickly_read(text: bytes, limits: Limits) -> NewLog | None:
    """The row of one log's JSON text, or None where the schema has to look."""
    return quick_log(quickly_decoded(text), limits)


def quick_log(record: Any, limits: Limits) -> NewLog | None:
    """The row of what `orjson.loads` gave, or None where the schema has to look."""
    if type(record) is not dict or not (FIELDS.issuperset(record) or _has_only_plain_metadata(record)):
        return None
    get = record.get
    app_name, imei, repair_id = get("app_name"), get("product_imei"), get("repair_id")
    tags, fields = get("tags"), get("fields")
    if type(app_name) is not str or not 0 < len(app_name) <= LONGEST_APP_NAME or "\0" in app_name:
        return None
    if imei is not None and not (type(imei) is str and len(imei) == 15 and imei.isascii() and imei.isdigit()):
        return None
    if repair_id is not None and type(repair_id) is not int:
        return None
    try:
        timestamp = parse_timestamp(get("timestamp"))
        tags_text = b"" if tags is None else orjson.dumps(tags)
        fields_text = b"" if fields is None else orjson.dumps(fields)
    except (ValueError, orjson.JSONEncodeError):  # no datetime; or nested deeper than orjson writes
        return None
    texts = tags_text + fields_text
    if len(texts) > limits.max_record_bytes - ROOM or not surely_canonical((tags, fields), texts, limits.max_nesting):
        return None
    return _new_log((app_name, imei, repair_id, timestamp, tags_text.decode() or None, fields_text.decode() or None))


def _has_only_plain_metadata(record: dict[str, Any]) -> bool:
    """Whether what is not a field is ignored metadata; how deep that may nest is the schema's parser's affair."""
    return all(name in METADATA and not isinstance(record[name], dict | list) for name in record.keys() - FIELDS)

"""A record may have exactly 256 KiB as compact JSON in every format (docs/reference/http-api.md#records)."""

import json
from collections.abc import Iterable
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.client.errors import InvalidLogError
from factory_logs.client.spool_line import log_line
from factory_logs.errors import BadRequestError
from factory_logs.influxdb.line_reader import LineProtocolReader
from factory_logs.ingest.batch_collector import Batch, BatchLimits
from factory_logs.ingest.batch_decoder import BatchReader, NdjsonReader
from factory_logs.ingest.fast_validation import fast_log_from_text, fast_logs, read_log
from factory_logs.ingest.validation import parse_log
from factory_logs.schemas.record_limits import OTHER_MEMBERS_BYTES, RecordLimits, record_bytes
from factory_logs.schemas.timestamps import format_timestamp
from tests.influxdb.strategies import Point

LIMIT = 3000
LIMITS = RecordLimits(max_record_bytes=LIMIT, max_nesting=32)
IMEI = "352099001761481"
NS_OF_A_MICROSECOND = 1000
Record = dict[str, object]

TEXT = st.text(st.sampled_from('aé€😀"\\/\x01\t\x7f'), min_size=1, max_size=255)
GIVEN_OUT = st.datetimes(datetime(1700, 1, 1), datetime(2250, 1, 1)).map(format_timestamp)
SPELLED = st.sampled_from(
    ["2024-01-31", "2024-01-31T13:45", "2024-01-31T13:45:00Z", "2024-01-31t13:45:00.123456789+05:45", 1706708700123,
     -1, 0, 1000.0]
)  # fmt: skip
TAGS = st.none() | st.dictionaries(st.sampled_from(["jig", 'a"', "é"]), TEXT, min_size=1, max_size=2)
# A trailing backslash would escape the next character.
PLAIN_TEXT = TEXT.map(lambda text: text.replace("\\", "/"))
PLAIN_TAGS = st.none() | st.dictionaries(st.sampled_from(["jig", "é"]), PLAIN_TEXT, min_size=1, max_size=2)
RECORDS = st.fixed_dictionaries(
    {"app_name": TEXT, "timestamp": GIVEN_OUT | SPELLED},
    optional={"product_imei": st.just(IMEI), "repair_id": st.sampled_from([1, 2**31, -(2**63), 10**30]), "tags": TAGS},
)
AS_LINES = st.fixed_dictionaries(
    {"app_name": PLAIN_TEXT.filter(lambda name: not name.startswith("\t")), "timestamp": GIVEN_OUT},
    optional={"product_imei": st.just(IMEI), "repair_id": st.sampled_from([1, 2**31, 10**17]), "tags": PLAIN_TAGS},
)
"""Records that line protocol can also express, in the format of responses."""


def compact(record: object) -> bytes:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()


def filled(record: Record, size: int) -> Record:
    """Return the record with `fields` that make it `size` bytes long, without nulls, which do not count."""
    whole = {name: value for name, value in record.items() if value is not None} | {"fields": {"f": ""}}
    whole["fields"] = {"f": "x" * (size - len(compact(whole)))}
    assert len(compact(whole)) == size
    return record | whole


def said_of(batch: Batch, count: int) -> bool:
    """Return whether all records were accepted; all or none must be, and size must be the only reason for an error."""
    assert (len(batch.logs), batch.rejected) in [(count, 0), (0, count)]
    assert all("over the limit of 3000 bytes of compact JSON" in error.message for error in batch.errors)
    return batch.rejected == 0


def by_itself(record: Record) -> bool:
    reader = BatchReader(LIMITS, BatchLimits())
    try:
        reader.add(read_log(compact(record), LIMITS))
    except BadRequestError as error:
        reader.reject(error)
    return said_of(reader.take(), 1)


def as_lines_of_json(record: Record) -> bool:
    reader = BatchReader(LIMITS, BatchLimits())
    lines = NdjsonReader(reader)
    lines.feed(compact(record) + b"\n" + compact(record))
    lines.finish()
    return said_of(reader.take(), 2)


async def in_an_array(record: Record) -> bool:
    reader = BatchReader(LIMITS, BatchLimits())
    await reader.read_array(compact([record, record]))
    return said_of(reader.take(), 2)


def as_line_protocol(record: Record, count: int) -> bool:
    tags = dict(record.get("tags") or {})  # type: ignore[call-overload]
    tags |= {name: str(record[name]) for name in ("product_imei", "repair_id") if name in record}
    since_1970 = datetime.fromisoformat(str(record["timestamp"])) - datetime(1970, 1, 1)
    microseconds = (since_1970.days * 86_400 + since_1970.seconds) * 10**6 + since_1970.microseconds
    fields: Record = record["fields"]  # type: ignore[assignment]
    line = Point(str(record["app_name"]), tags, fields, microseconds * NS_OF_A_MICROSECOND).line()
    reader = LineProtocolReader(LIMITS, BatchLimits(), 1, 0)
    reader.feed("\n".join([line] * count).encode())
    reader.finish()
    return said_of(reader.take(), count)


async def taken(record: Record) -> set[bool]:
    """Return whether the record is accepted, in all JSON formats."""
    return {by_itself(record), as_lines_of_json(record), await in_an_array(record)}


@given(record=RECORDS)
async def test_the_size_limit_is_the_same_for_a_single_log_an_array_and_ndjson(record: Record) -> None:
    assert await taken(filled(record, LIMIT)) == {True}
    assert await taken(filled(record, LIMIT + 1)) == {False}


@pytest.mark.slow
@given(record=AS_LINES)
async def test_line_protocol_has_the_size_limit_of_the_returned_record(record: Record) -> None:
    for size, fits in ((LIMIT, True), (LIMIT + 1, False)):
        whole = filled(record, size)
        assert await taken(whole) == {fits}
        assert {as_line_protocol(whole, 1), as_line_protocol(whole, 20)} == {fits}


@given(record=AS_LINES)
def test_a_device_accepts_the_same_sizes_as_the_service(record: Record) -> None:
    assert len(log_line(filled(record, LIMIT), LIMITS)) == LIMIT
    with pytest.raises(InvalidLogError, match="not valid") as caught:
        log_line(filled(record, LIMIT + 1), LIMITS)
    assert "over the limit of 3000 bytes" in caught.value.errors[0].message


def test_a_device_measures_the_sent_log_not_the_given_values() -> None:
    short: Record = {"app_name": "a", "timestamp": "2024-01-31"}
    with pytest.raises(InvalidLogError):
        log_line(filled(short, LIMIT), LIMITS)
    long: Record = {"app_name": "a", "timestamp": "2024-01-31T13:45:00.000000000+00:00"}
    assert len(log_line(filled(long, LIMIT + 1), LIMITS)) <= LIMIT


@pytest.mark.parametrize("spaces", [0, 5000])
async def test_white_space_metadata_and_nulls_do_not_count(spaces: int) -> None:
    record: Record = {"app_name": "a", "timestamp": 1, "product_imei": None, "repair_id": None, "tags": None}
    ignored = {"created_by": "x" * 5000, "factory_log_id": 7}
    assert await taken(filled(record, LIMIT) | ignored) == {True}
    assert parse_log(b" " * spaces + json.dumps(filled(record, LIMIT), indent=1).encode(), LIMITS)


async def test_an_escape_counts_as_the_character_it_represents() -> None:
    record = filled({"app_name": "é", "timestamp": 1, "tags": {"jig": "ü"}}, LIMIT)
    assert read_log(json.dumps(record).encode(), LIMITS).app_name == "é"


def longest_besides() -> Iterable[Record]:
    for app_name in ("\x01" * 255, "😀" * 255, '"' * 255):
        for repair_id in (-(2**63), 2**64 - 1):
            for timestamp in ("2024-01-31T13:45:00.123456789+05:45", -62135596800000, 253402300799999.0):
                yield {"app_name": app_name, "product_imei": IMEI, "repair_id": repair_id, "timestamp": timestamp}


def test_a_log_read_without_the_schema_is_certainly_within_the_limit() -> None:
    """Text has the maximum length of the fast validation, and the rest of the record has its maximum size."""
    texts = LIMIT - OTHER_MEMBERS_BYTES
    for rest in longest_besides():
        record = rest | {"tags": "", "fields": "x" * (texts - len('""""'))}
        assert fast_log_from_text(compact(record), LIMITS) is not None
        assert fast_logs([record], LIMITS) is not None
        assert fast_log_from_text(compact(record | {"tags": "x"}), LIMITS) is None
        assert fast_logs([record | {"tags": "x"}], LIMITS) is None
        assert len(compact(record)) <= LIMIT


@given(record=RECORDS)
def test_the_size_of_a_record_is_the_size_of_its_compact_json(record: Record) -> None:
    sent = {name: value for name, value in record.items() if value is not None}
    tags = compact(sent["tags"]) if "tags" in sent else None
    imei, repair_id = sent.get("product_imei"), sent.get("repair_id")
    time = len(compact(sent["timestamp"]))
    size = record_bytes(str(sent["app_name"]), imei, repair_id, time, tags, None)  # type: ignore[arg-type]
    assert size == len(compact(sent))

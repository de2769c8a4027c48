import enum
import json
import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.client.errors import InvalidLogError
from factory_logs.client.lines import line_of, line_of_json
from factory_logs.errors import BadRequestError
from factory_logs.ingest.records import Limits, parse_log
from tests.schemas.test_json_values import STORABLE

LIMITS = Limits(max_record_bytes=256 * 1024, max_nesting=32)
GOOD: dict[str, object] = {"app_name": "jig", "timestamp": "2024-01-31T13:45:00Z"}


def faults_of(**changes: object) -> dict[str, str]:
    with pytest.raises(InvalidLogError) as caught:
        line_of(GOOD | changes, LIMITS)
    return {fault.field: fault.message for fault in caught.value.errors}


def sent(**changes: object) -> Any:
    return json.loads(line_of(GOOD | changes, LIMITS))


def test_a_line_holds_what_was_given_and_the_time_in_utc() -> None:
    zone = timezone(timedelta(hours=8))
    assert sent(timestamp=datetime(2024, 1, 31, 21, 45, 0, 5, zone), product_imei="352099001761481", repair_id=7) == {
        "app_name": "jig",
        "product_imei": "352099001761481",
        "repair_id": 7,
        "timestamp": "2024-01-31 13:45:00.000005",
    }
    assert sent(timestamp=datetime(2024, 1, 31))["timestamp"] == "2024-01-31 00:00:00"
    assert sent(timestamp=0)["timestamp"] == "1970-01-01 00:00:00"


@given(tags=STORABLE, fields=STORABLE)
def test_what_the_device_takes_the_server_reads_as_the_same_values(tags: object, fields: object) -> None:
    line = line_of(GOOD | {"tags": tags, "fields": fields}, LIMITS)
    assert b"\n" not in line
    log = parse_log(line, LIMITS)
    assert json.loads(log.tags or "null") == tags
    assert json.loads(log.fields or "null") == fields


JSON_OR_NOT = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    app_name=st.text(max_size=300),
    imei=st.none() | st.from_regex(r"[0-9]{14,16}"),
    fields=JSON_OR_NOT,
)
def test_the_device_refuses_exactly_what_the_server_refuses_and_in_its_words(
    app_name: str, imei: str | None, fields: object
) -> None:
    record = GOOD | {"app_name": app_name, "product_imei": imei, "fields": fields}
    try:
        line_of(record, LIMITS)
        here = None
    except InvalidLogError as error:
        here = {(fault.field, fault.message) for fault in error.errors}
    try:
        parse_log(json.dumps(record).encode(), LIMITS)
        there = None
    except BadRequestError as error:
        there = {(fault.field, fault.message) for fault in error.errors}
    assert (here is None) == (there is None)
    stopped_early = there is not None and any("surrogate" in message for _, message in there)
    assert here == there or stopped_early  # at such a text the server's parser stops and names no more


def test_every_fault_is_named() -> None:
    assert faults_of(app_name="", product_imei="123", colour="red") == {
        "app_name": "String should have at least 1 character",
        "product_imei": "expected exactly 15 digits",
        "colour": "is not a known field",
    }
    assert faults_of(fields={"a": [1, math.nan]}) == {
        "fields.a.1": "NaN, Infinity and numbers beyond a double cannot be stored"
    }
    assert faults_of(fields={"big": 2**64}) == {"fields.big": "an integer must fit in 64 bits"}
    assert faults_of(fields="x" * 256 * 1024) == {"": "the record is over the limit of 262144 bytes of compact JSON"}


def test_values_that_are_no_json_are_refused_by_their_place_rather_than_guessed() -> None:
    faults = faults_of(fields={"when": datetime(2024, 1, 1, tzinfo=UTC), "raw": b"x", 5: "five"})
    assert faults == {
        "fields.when": "datetime is no JSON value; send a string, a number, or the like",
        "fields.raw": "bytes is no JSON value; send a string, a number, or the like",
        "fields": "the key 5 is no string",
    }


def test_tuples_and_subclasses_become_what_they_stand_for() -> None:
    class Result(enum.StrEnum):
        PASS = "pass"

    class Volt(float):
        pass

    assert sent(fields={"r": Result.PASS, "v": (Volt(3.28), 1)})["fields"] == {"r": "pass", "v": [3.28, 1]}


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth > 1 else []


def test_nesting_ends_where_the_servers_does() -> None:
    assert sent(fields=nested(32))["fields"] == nested(32)
    assert list(faults_of(fields=nested(33)).values()) == ["arrays and objects are nested too deep"]
    endless: list[object] = []
    endless.append(endless)
    assert list(faults_of(fields=endless).values()) == ["arrays and objects are nested too deep"]


def test_a_json_line_gets_defaults_for_what_it_does_not_name() -> None:
    line = line_of_json(b'{"app_name": "own", "fields": {"n": 1}}', GOOD, LIMITS)
    assert json.loads(line) == {"app_name": "own", "timestamp": "2024-01-31 13:45:00", "fields": {"n": 1}}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b'{"app_name": NaN}', b"\xff", b"[" * 100_000])
def test_a_line_that_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidLogError):
        line_of_json(text, GOOD, LIMITS)

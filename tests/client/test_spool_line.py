import enum
import json
import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.client.errors import InvalidLogError
from factory_logs.client.spool_line import log_line, log_line_from_json
from factory_logs.errors import BadRequestError
from factory_logs.ingest.validation import parse_log
from factory_logs.schemas.record_limits import RecordLimits
from tests.schemas.strategies import STORABLE

LIMITS = RecordLimits(max_record_bytes=256 * 1024, max_nesting=32)
GOOD: dict[str, object] = {"app_name": "jig", "timestamp": "2024-01-31T13:45:00Z"}


def errors_of(**changes: object) -> dict[str, str]:
    with pytest.raises(InvalidLogError) as caught:
        log_line(GOOD | changes, LIMITS)
    return {each.field: each.message for each in caught.value.errors}


def sent(**changes: object) -> Any:
    return json.loads(log_line(GOOD | changes, LIMITS))


def test_a_line_contains_the_given_values_and_the_time_in_utc() -> None:
    zone = timezone(timedelta(hours=8))
    assert sent(timestamp=datetime(2024, 1, 31, 21, 45, 0, 5, zone), product_imei="352099001761481", repair_id=7) == {
        "app_name": "jig",
        "product_imei": "352099001761481",
        "repair_id": 7,
        "timestamp": "2024-01-31 13:45:00.000005",
    }
    assert sent(timestamp=datetime(2024, 1, 31))["timestamp"] == "2024-01-31 00:00:00"
    assert sent(timestamp=0)["timestamp"] == "1970-01-01 00:00:00"


@pytest.fixture
def in_shanghai(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the local time of the process to UTC+8."""
    monkeypatch.setenv("TZ", "Asia/Shanghai")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("in_shanghai")
def test_a_naive_datetime_is_local_time_and_a_text_without_zone_is_utc() -> None:
    assert sent(timestamp=datetime(2024, 1, 31, 21, 45))["timestamp"] == "2024-01-31 13:45:00"
    assert sent(timestamp=datetime(2024, 1, 31, 21, 45, tzinfo=UTC))["timestamp"] == "2024-01-31 21:45:00"
    assert sent(timestamp="2024-01-31 21:45:00")["timestamp"] == "2024-01-31 21:45:00"
    before = datetime.now(UTC).replace(tzinfo=None)
    stored = datetime.fromisoformat(sent(timestamp=datetime.now())["timestamp"])
    assert before <= stored <= datetime.now(UTC).replace(tzinfo=None)


@pytest.mark.usefixtures("in_shanghai")
@pytest.mark.parametrize("moment", [datetime.min, datetime.max.replace(tzinfo=timezone(timedelta(hours=-8)))])
def test_a_datetime_that_is_in_no_year_of_utc_is_refused(moment: datetime) -> None:
    assert errors_of(timestamp=moment) == {"timestamp": "in UTC this is not in the years 1 to 9999"}


@given(tags=STORABLE, fields=STORABLE)
def test_the_server_reads_the_same_values_that_the_device_accepted(tags: object, fields: object) -> None:
    line = log_line(GOOD | {"tags": tags, "fields": fields}, LIMITS)
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
def test_the_device_refuses_the_same_logs_as_the_server_with_the_same_message(
    app_name: str, imei: str | None, fields: object
) -> None:
    record = GOOD | {"app_name": app_name, "product_imei": imei, "fields": fields}
    try:
        log_line(record, LIMITS)
        here = None
    except InvalidLogError as error:
        here = {(each.field, each.message) for each in error.errors}
    try:
        parse_log(json.dumps(record).encode(), LIMITS)
        there = None
    except BadRequestError as error:
        there = {(each.field, each.message) for each in error.errors}
    assert (here is None) == (there is None)
    stopped_early = there is not None and any("surrogate" in message for _, message in there)
    assert here == there or stopped_early  # the server's parser stops at such a text and names no further errors


def test_every_error_is_named() -> None:
    assert errors_of(app_name="", product_imei="123", colour="red") == {
        "app_name": "String should have at least 1 character",
        "product_imei": "expected exactly 15 digits",
        "colour": "is not a known field",
    }
    assert errors_of(fields={"a": [1, math.nan]}) == {
        "fields.a.1": "NaN, Infinity and numbers beyond a double cannot be stored"
    }
    assert errors_of(fields={"big": 2**64}) == {"fields.big": "an integer must fit in 64 bits"}
    assert errors_of(fields="x" * 256 * 1024) == {"": "the record is over the limit of 262144 bytes of compact JSON"}


def test_values_that_are_not_json_are_refused_by_their_path() -> None:
    errors = errors_of(fields={"when": datetime(2024, 1, 1, tzinfo=UTC), "raw": b"x", 5: "five"})
    assert errors == {
        "fields.when": "datetime.datetime is not a JSON value; send a string or a number, for example",
        "fields.raw": "bytes is not a JSON value; send a string or a number, for example",
        "fields": "the key 5 is not a string",
    }


def test_tuples_and_subclasses_become_json() -> None:
    class Result(enum.StrEnum):
        PASS = "pass"

    class Volt(float):
        pass

    assert sent(fields={"r": Result.PASS, "v": (Volt(3.28), 1)})["fields"] == {"r": "pass", "v": [3.28, 1]}


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (Decimal("3.28"), 3.28), (Decimal(7), 7), (Decimal("7.0"), 7.0), (Decimal("1E+3"), 1000), (Decimal("-0"), 0),
        (numpy.bool_(True), True), (numpy.int64(-5), -5), (numpy.uint64(2**64 - 1), 2**64 - 1),
        (numpy.float64(3.28), 3.28), (numpy.float32(0.5), 0.5), (numpy.array([1.5, 2]), [1.5, 2.0]),
        (numpy.array([[True], [False]]), [[True], [False]]), (numpy.str_("a"), "a"),
    ],
    ids=repr,
)  # fmt: skip
def test_numbers_of_decimal_and_numpy_become_numbers_of_json(value: object, number: object) -> None:
    stored = sent(fields={"v": value, "list": [value]})["fields"]
    assert stored == {"v": number, "list": [number]}
    assert type(stored["v"]) is type(number)


def test_a_number_of_numpy_is_accepted_in_any_field() -> None:
    log = sent(app_name=numpy.str_("jig"), repair_id=numpy.int32(7), timestamp=numpy.int64(0))
    assert (log["app_name"], log["repair_id"], log["timestamp"]) == ("jig", 7, "1970-01-01 00:00:00")


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (numpy.datetime64("2024-01-31T13:45:00"), "numpy.datetime64"),
        (numpy.timedelta64(1, "s"), "numpy.timedelta64"),
        (numpy.complex128(1j), "numpy.complex128"),
        (numpy.longdouble(1), "numpy.longdouble"),
        (numpy.array([object()]), "numpy.ndarray"),
        (numpy.bytes_(b"x"), "numpy.bytes_"),
        (Fraction(1, 3), "fractions.Fraction"),
        (b"x", "bytes"),
    ],
    ids=["datetime64", "timedelta64", "complex128", "longdouble", "array of objects", "bytes_", "Fraction", "bytes"],
)
def test_another_type_is_refused_by_its_full_name(value: object, name: str) -> None:
    assert errors_of(fields={"v": value}) == {
        "fields.v": f"{name} is not a JSON value; send a string or a number, for example"
    }


@pytest.mark.parametrize(
    "value", [Decimal("NaN"), Decimal("sNaN"), Decimal("Infinity"), Decimal("1e400"), Decimal("1e999999999"),
              numpy.float64("nan"), numpy.array([numpy.inf])], ids=repr,
)  # fmt: skip
def test_a_number_that_json_cannot_represent_is_refused_with_the_same_message_for_each_type(value: object) -> None:
    assert set(errors_of(fields=value).values()) == {"NaN, Infinity and numbers beyond a double cannot be stored"}


def test_a_decimal_integer_beyond_64_bits_is_refused() -> None:
    assert errors_of(fields=Decimal(2**64)) == {"fields": "an integer must fit in 64 bits"}


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth > 1 else []


def test_nesting_has_the_limit_of_the_server() -> None:
    assert sent(fields=nested(32))["fields"] == nested(32)
    assert list(errors_of(fields=nested(33)).values()) == ["arrays and objects are nested too deep"]
    endless: list[object] = []
    endless.append(endless)
    assert list(errors_of(fields=endless).values()) == ["arrays and objects are nested too deep"]


def test_a_json_line_gets_defaults_for_missing_members() -> None:
    line = log_line_from_json(b'{"app_name": "own", "fields": {"n": 1}}', GOOD, LIMITS)
    assert json.loads(line) == {"app_name": "own", "timestamp": "2024-01-31 13:45:00", "fields": {"n": 1}}


NAMES = st.sampled_from(["app_name", "product_imei", "repair_id", "timestamp", "tags", "fields"]) | st.text(max_size=3)
MEMBERS = st.dictionaries(NAMES | st.just("\ud800"), JSON_OR_NOT, max_size=4)


@given(text=st.binary(max_size=40) | MEMBERS.map(lambda record: json.dumps(record).encode()))
def test_a_line_of_any_bytes_is_accepted_or_refused_with_a_printable_reason(text: bytes) -> None:
    try:
        log_line_from_json(text, GOOD, LIMITS).decode()
    except InvalidLogError as error:
        for shown in (
            str(error),
            error.message,
            *(part for each in error.errors for part in (each.field, each.message)),
        ):
            shown.encode()


def test_a_number_too_long_to_be_written_is_refused() -> None:
    assert "repair_id" in errors_of(repair_id=10**5000)
    assert errors_of(fields=10**5000) == {"fields": "an integer must fit in 64 bits"}


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"1", b'{"app_name": NaN}', b"\xff", b"[" * 100_000])
def test_a_line_that_is_not_a_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidLogError):
        log_line_from_json(text, GOOD, LIMITS)

from datetime import datetime

import orjson
import pytest
from hypothesis import given

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.influxdb.mapping import PointParser
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.record_limits import RecordLimits
from tests.influxdb.strategies import STORABLE_POINTS, Point

LIMITS = RecordLimits(max_record_bytes=256 * 1024, max_nesting=32)
NOW = 1_706_708_700_000_000_000


def read(line: str, limits: RecordLimits = LIMITS, unit: int = 1) -> NewLog:
    return PointParser(limits, unit, NOW).read(line, 10**6)


def error(line: str, limits: RecordLimits = LIMITS) -> FieldError:
    with pytest.raises(BadRequestError) as caught:
        read(line, limits)
    (error,) = caught.value.errors
    return error


def test_each_part_of_a_point_is_stored_in_its_column() -> None:
    line = "tiger,jig_id=J-07,product_imei=352099001761481,repair_id=12 passed=t,voltage=3.28,n=7i 1706708700123456789"
    log = read(line)
    assert (log.app_name, log.product_imei, log.repair_id) == ("tiger", "352099001761481", 12)
    assert log.timestamp == datetime(2024, 1, 31, 13, 45, 0, 123456)
    assert orjson.loads(log.tags or "") == {"jig_id": "J-07"}
    assert orjson.loads(log.fields or "") == {"passed": True, "voltage": 3.28, "n": 7}


def test_a_point_without_other_tags_has_null_tags() -> None:
    assert read("m,product_imei=352099001761481 f=1 1").tags is None


def test_a_point_without_a_time_gets_the_current_time() -> None:
    assert read("m f=1").timestamp == datetime(2024, 1, 31, 13, 45)
    with pytest.raises(BadRequestError, match="Validation failed") as caught:
        PointParser(LIMITS, 1, None).read("m f=1", 100)
    assert "missing timestamp" in caught.value.errors[0].message


def test_a_time_before_1970_is_cut_off_to_the_microsecond_too() -> None:
    assert read("m f=1 -1").timestamp == datetime(1969, 12, 31, 23, 59, 59, 999999)
    assert read("m f=1 -9223372036854775806").timestamp == datetime(1677, 9, 21, 0, 12, 43, 145224)


def test_times_are_read_in_the_given_unit() -> None:
    assert read("m f=1 1706708700", unit=10**9).timestamp == datetime(2024, 1, 31, 13, 45)


@given(STORABLE_POINTS)
def test_fields_are_stored_with_their_types(point: Point) -> None:
    log = read(point.line())
    assert repr(orjson.loads(log.fields or "")) == repr(point.stored_fields)
    assert orjson.loads(log.tags or "{}") == point.tags


def test_a_float_stays_a_float_and_an_unsigned_integer_has_its_full_range() -> None:
    assert read("m a=1,b=1e23,c=18446744073709551615u 1").fields == (
        '{"a":1.0,"b":100000000000000000000000.0,"c":18446744073709551615}'
    )


@pytest.mark.parametrize(
    ("line", "field", "message"),
    [
        ("m,product_imei=123 f=1", "product_imei", "15 digits"),
        ("m,product_imei=٣٥٢٠٩٩٠٠١٧٦١٤٨١ f=1", "product_imei", "15 digits"),
        ("m,repair_id=x f=1", "repair_id", "integer"),
        ("m,repair_id=-1 f=1", "repair_id", "integer"),
        ('m product_imei="352099001761481"', "fields.product_imei", "send it as a tag"),
        ("m repair_id=1i", "fields.repair_id", "send it as a tag"),
        ("m timestamp=1i", "fields.timestamp", "another name"),
        ("m created_by=1i", "fields.created_by", "another name"),
        ("m" * 256 + " f=1", "app_name", "255 characters"),
        ('m f="\0"', "", "NUL"),
        ("m,a=\0 f=1", "", "NUL"),
        ('m f="\udcff"', "", "not UTF-8"),
        ("m f=", "", "unable to parse 'm f=': missing field value"),
        ("m f=" + "x" * 200, "", "x…': invalid boolean"),
    ],
)
def test_a_point_that_cannot_be_stored_is_an_error_that_names_its_field(line: str, field: str, message: str) -> None:
    found = error(line)
    assert found.field == field
    assert message in found.message


def test_the_longest_measurement_can_be_stored() -> None:
    assert read("é" * 255 + " f=1").app_name == "é" * 255


def test_a_record_at_the_size_limit_is_accepted_and_one_byte_more_is_refused() -> None:
    limits = RecordLimits(max_record_bytes=1000, max_nesting=32)
    for time, shown in (("1", "1970-01-01 00:00:00"), ("1000", "1970-01-01 00:00:00.000001")):
        empty = f'{{"app_name":"m\\"","timestamp":"{shown}","tags":{{"a":"b"}},"fields":{{"f":""}}}}'
        room = 1000 - len(empty)
        assert read(f'm",a=b f="{"x" * room}" {time}', limits).app_name == 'm"'
        assert "over the limit of 1000 bytes" in error(f'm",a=b f="{"x" * (room + 1)}" {time}', limits).message


def test_a_line_that_is_too_long_is_refused() -> None:
    with pytest.raises(BadRequestError) as caught:
        PointParser(LIMITS, 1, NOW).read("m f=1 1", 6)
    assert "over the limit of 6 characters" in caught.value.errors[0].message

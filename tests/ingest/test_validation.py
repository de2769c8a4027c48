import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.errors import BadRequestError
from factory_logs.ingest.validation import parse_log
from factory_logs.schemas.record_limits import RecordLimits

LIMITS = RecordLimits(max_record_bytes=256 * 1024, max_nesting=32)
GOOD = {"app_name": "tiger_test_jig_production", "timestamp": "2024-01-31T13:45:00Z"}


def errors_of(body: bytes) -> dict[str, str]:
    with pytest.raises(BadRequestError) as caught:
        parse_log(body, LIMITS)
    return {error.field: error.message for error in caught.value.errors} or {"": caught.value.message}


def body(**changes: object) -> bytes:
    return json.dumps(GOOD | changes).encode()


def test_a_log_requires_only_app_name_and_timestamp() -> None:
    log = parse_log(body(), LIMITS)
    assert (log.product_imei, log.repair_id, log.tags, log.fields) == (None, None, None, None)
    assert errors_of(b"{}") == {"app_name": "is required", "timestamp": "is required"}


def test_metadata_is_ignored_and_any_other_unknown_field_is_named() -> None:
    parse_log(body(factory_log_id="x", created_at=1, created_by=[], modified_at={}, modified_by=None), LIMITS)
    assert errors_of(body(colour="red")) == {"colour": "is not a known field"}


@pytest.mark.parametrize("length", [1, 255])
def test_an_app_name_has_1_to_255_characters(length: int) -> None:
    assert parse_log(body(app_name="ü" * length), LIMITS).app_name == "ü" * length


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("app_name", ""),
        ("app_name", "x" * 256),
        ("app_name", None),
        ("app_name", 7),
        ("app_name", "a\0"),
        ("product_imei", "12345678901234"),
        ("product_imei", "1234567890123456"),
        ("product_imei", "12345678901234x"),
        ("product_imei", "123456789012345\n"),
        ("product_imei", "١٢٣٤٥٦٧٨٩٠١٢٣٤٥"),
        ("product_imei", 123456789012345),
        ("repair_id", ""),
        ("repair_id", "x"),
        ("repair_id", " 1"),
        ("repair_id", "1.0"),
        ("repair_id", "٣"),
        ("repair_id", "9" * 20),
        ("repair_id", 1.5),
        ("repair_id", True),
        ("timestamp", None),
        ("timestamp", "now"),
    ],
)
def test_a_value_that_breaks_a_rule_is_refused_by_name(field: str, value: object) -> None:
    assert list(errors_of(body(**{field: value}))) == [field]


@pytest.mark.parametrize(("sent", "stored"), [("3", 3), ("-3", -3), ("003", 3), (3.0, 3), (3, 3)])
def test_a_repair_id_may_be_digits_or_a_number_without_a_fraction(sent: object, stored: int) -> None:
    assert parse_log(body(repair_id=sent), LIMITS).repair_id == stored


@pytest.mark.parametrize(
    ("tags", "path"),
    [
        ('{"a": NaN}', "tags.a"),
        ('{"a": [1, -Infinity]}', "tags.a.1"),
        ('{"a": 1e400}', "tags.a"),
        ('{"a": 18446744073709551616}', "tags.a"),
        ('{"a": "\\ud800"}', "tags.a"),
        ('{"\\u0000": 1}', "tags"),
        ("[" * 33 + "]" * 33, "tags" + ".0" * 32),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_with_its_path(tags: str, path: str) -> None:
    assert list(errors_of(f'{{"app_name": "a", "timestamp": 1, "tags": {tags}}}'.encode())) == [path]


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b'{"app_name": "\xff"}', b"{} {}"])
def test_text_that_is_not_json_is_refused_with_this_reason(text: bytes) -> None:
    assert errors_of(text)[""].startswith("Unable to decode data")


@pytest.mark.parametrize("text", [b"[]", b"null", b'"x"', b"7"])
def test_a_record_that_is_not_an_object_is_refused(text: bytes) -> None:
    assert list(errors_of(text)) == [""]


def test_a_hundred_thousand_levels_of_nesting_are_refused_like_thirty_three() -> None:
    assert errors_of(b'{"app_name":"a","timestamp":1,"tags":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@given(st.binary(max_size=200))
def test_no_bytes_break_the_parser(text: bytes) -> None:
    with contextlib.suppress(BadRequestError):
        parse_log(text, LIMITS)

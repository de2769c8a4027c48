import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.schemas.json_values import INT_MAX, INT_MIN, canonical_json, storage_errors
from tests.schemas.strategies import STORABLE


def errors(value: object, max_nesting: int = 32) -> list[str]:
    return [error.field for error in storage_errors(value, "tags", max_nesting)]


@given(STORABLE)
def test_a_storable_value_has_no_error_and_keeps_its_types(value: object) -> None:
    assert errors(value) == []
    back = json.loads(canonical_json(value))
    assert back == value
    assert repr(type(back)) == repr(type(value))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_written_with_a_point_so_that_it_stays_a_float_in_jsonb(number: float) -> None:
    assert json.loads(canonical_json([number])) == [number]
    assert b"." in canonical_json(number) or b"e-" in canonical_json(number)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("a\0b", "tags"),
        ({"a\0": 1}, "tags"),
        ({"jig": ["ok", "\0"]}, "tags.jig.1"),
        ({"v": math.nan}, "tags.v"),
        ({"v": [math.inf]}, "tags.v.0"),
        ({"n": INT_MAX + 1}, "tags.n"),
        ({"n": INT_MIN - 1}, "tags.n"),
        ({"s": "\ud800"}, "tags.s"),
        ({"s": {"\udfff": 1}}, "tags.s"),
    ],
)
def test_a_value_that_cannot_be_stored_is_refused_with_its_path(value: object, path: str) -> None:
    assert errors(value) == [path]


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_is_allowed_to_the_limit_and_not_beyond() -> None:
    assert errors(nested(32)) == []
    assert len(errors(nested(33))) == 1


@pytest.mark.parametrize("value", [-0.0, [-0.0], {"a": [-0.0, -0.05, "-0.0"]}])
def test_a_negative_zero_is_written_as_jsonb_returns_it(value: object) -> None:
    text = canonical_json(value).decode()
    assert json.loads(text) == value
    assert text.replace('"-0.0"', "").count("-0.0") == text.count("-0.05")

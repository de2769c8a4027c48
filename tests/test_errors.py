"""Errors can be encoded as JSON and UTF-8, even if they repeat strange input from a client."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.errors import MAX_FIELD_CHARACTERS, BadRequestError, FieldError

ANY_TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)


@given(ANY_TEXT, ANY_TEXT)
def test_any_path_and_any_message_are_printable(path: str, message: str) -> None:
    error = BadRequestError(message, [FieldError(path, message, 1)])
    assert orjson.dumps({"message": error.message, "errors": [each.as_json() for each in error.errors]})
    str(error).encode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_printable_text_is_unchanged(text: str) -> None:
    assert (FieldError(text, text).field, FieldError(text, text).message) == (text, text)


def test_a_lone_surrogate_is_shown_as_its_escape() -> None:
    assert FieldError("tags.\ud800.x", "no \udc00").as_json() == {"field": r"tags.\ud800.x", "message": r"no \udc00"}


@pytest.mark.parametrize(
    ("length", "shown"), [(MAX_FIELD_CHARACTERS, MAX_FIELD_CHARACTERS), (10**6, MAX_FIELD_CHARACTERS + 1)]
)
def test_a_long_path_is_cut_off(length: int, shown: int) -> None:
    assert len(FieldError("x" * length, "").field) == shown

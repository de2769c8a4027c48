"""Strict decoding of JSON, and the check that PostgreSQL and clients can represent a value exactly
(docs/reference/http-api.md#records)."""

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import repeat
from operator import add
from typing import Any

import orjson

from factory_logs.errors import FieldError

INT_MIN, INT_MAX = -(2**63), 2**64 - 1
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_EXPONENT, _SIGNED_EXPONENT, _NEGATIVE_ZERO = b"0e0", b"0e+0", b"-0.0"
_LARGE_FLOAT = b"e+" if orjson.dumps(1e16) == b"1e+16" else b"e"
_LARGE_FLOAT_BYTE = _LARGE_FLOAT[-1:]
_EXPONENTS_FROM = 1e15
"""Below this number orjson writes floats without a positive exponent."""


def strict_json(text: str | bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, also for NaN and Infinity, or RecursionError."""
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def fast_storable_text(value: object, max_nesting: int) -> bytes | None:
    """Return the same text as `canonical_json` if the value is certainly storable, or None if it needs a full check.

    Nearly all values pass: orjson itself rejects lone surrogates and integers over 64 bits, and writes NaN as null and
    NUL as an escape. If a text has no more brackets than the allowed nesting, it cannot be nested too deep.
    """
    if value is None:
        return b"null"
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return None
    if b"null" in text or b"\\u0000" in text or text.count(b"{") + text.count(b"[") > max_nesting:
        return None
    return _canonical(value, text)


def storage_errors(value: object, path: str, max_nesting: int) -> Iterator[FieldError]:
    """Yield the errors of one decoded JSON value, each with its dotted path; none if the value can be stored.

    Nesting counts the arrays and objects around a value inside `tags` or `fields`; the outermost one is level 1.
    """
    if isinstance(value, str):
        yield from _text_errors(value, path)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield FieldError(path, "NaN, Infinity and numbers beyond a double cannot be stored")
    elif isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            yield FieldError(path, "an integer must fit in 64 bits")
    elif isinstance(value, dict | list):
        yield from _errors_inside(value, path, max_nesting)


def _errors_inside(value: dict[str, object] | list[object], path: str, max_nesting: int) -> Iterator[FieldError]:
    if max_nesting == 0:
        yield FieldError(path, "arrays and objects are nested too deep")
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from storage_errors(item, f"{path}.{index}", max_nesting - 1)
        return
    for key, item in value.items():
        yield from _text_errors(key, path)
        yield from storage_errors(item, f"{path}.{key}", max_nesting - 1)


def _text_errors(text: str, path: str) -> Iterator[FieldError]:
    if "\0" in text:
        yield FieldError(path, "the NUL character cannot be stored")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        yield FieldError(path, "a lone surrogate is not a character and cannot be stored")


def canonical_json(value: object) -> bytes:
    """Return a storable value as JSON text whose number types survive PostgreSQL's jsonb.

    jsonb returns 1e23 as 100000000000000000000000, which a client reads as an integer. Written as
    100000000000000000000000.0 it stays a float. jsonb has no negative zero, so this function writes 0.0 for it, and the
    response to a write contains the stored value.
    """
    return _canonical(value, orjson.dumps(value))


def jsonb_order(name: str) -> tuple[int, bytes]:
    """Return the key by which jsonb sorts the members of an object."""
    text = name.encode()
    return len(text), text


def _canonical(value: object, text: bytes) -> bytes:
    # orjson writes large floats as 1e23; the format of the exponent depends on its version. A string that looks like
    # such a float or like a negative zero causes no error; it only costs time.
    zeros = text.translate(_DIGITS_TO_ZERO)
    if _EXPONENT not in zeros and _SIGNED_EXPONENT not in zeros and _NEGATIVE_ZERO not in text:
        return text
    return orjson.dumps(_with_plain_floats(value))


def _with_plain_floats(value: object) -> object:
    if isinstance(value, float):
        return orjson.Fragment(_without_exponent(value)) if _changes_in_jsonb(value) else value
    if isinstance(value, list):
        return [_with_plain_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_plain_floats(item) for key, item in value.items()}
    return value


def _changes_in_jsonb(number: float) -> bool:
    """Return whether jsonb would return the float as an integer, or whether the float is a negative zero."""
    return abs(number) >= _EXPONENTS_FROM or not number


def _without_exponent(number: float) -> str:
    digits = format(Decimal(repr(number or 0.0)), "f")
    return digits if "." in digits else f"{digits}.0"


def surely_canonical(values: object, text: bytes, max_nesting: int) -> bool:
    """Return whether `text` can be stored unchanged; orjson has decoded `values` and written `text` from them.

    If the result is False, the values must be checked one by one. orjson has already rejected lone surrogates and NaN.
    """
    return text.count(b"{") + text.count(b"[") <= max_nesting and _is_unchanged(values, text)


def all_surely_canonical(values: object, texts: Sequence[bytes], max_nesting: int) -> bool:
    """Return the result of `surely_canonical` for many texts at once."""
    text = b"".join(texts)
    brackets: Iterable[int] = map(bytes.count, texts, repeat(b"{"))
    if b"[" in text:
        brackets = map(add, brackets, map(bytes.count, texts, repeat(b"[")))
    return max(brackets, default=0) <= max_nesting and _is_unchanged(values, text)


def _is_unchanged(values: object, text: bytes) -> bool:
    """Return whether the text contains no NUL and no float that jsonb would change.

    An integer beyond 64 bits counts as such a float, because orjson decodes it to a float. Before each search, a search
    for a single byte that most texts do not contain saves four fifths of the cost.
    """
    if b"\\" in text and b"\\u0000" in text:
        return False
    if (_LARGE_FLOAT_BYTE in text and _LARGE_FLOAT in text) or (b"-" in text and _NEGATIVE_ZERO in text):
        return not _has_changing_float(values)  # a string may contain the same text
    return True


def _has_changing_float(value: object) -> bool:
    if isinstance(value, float):
        return _changes_in_jsonb(value)
    if isinstance(value, dict):
        return any(map(_has_changing_float, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_changing_float, value))

"""Which JSON values can be stored exactly (SPEC 1): what PostgreSQL or a reader's JSON cannot carry is refused."""

import math
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from itertools import repeat
from operator import add

import orjson

from factory_logs.errors import FieldError

INT_MIN, INT_MAX = -(2**63), 2**64 - 1
_DIGITS_TO_ZERO = bytes.maketrans(b"123456789", b"000000000")
_EXPONENT, _SIGNED_EXPONENT, _NEGATIVE_ZERO = b"0e0", b"0e+0", b"-0.0"
_LARGE_FLOAT = b"e+" if orjson.dumps(1e16) == b"1e+16" else b"e"
_LARGE_FLOAT_BYTE = _LARGE_FLOAT[-1:]
_EXPONENTS_FROM = 1e15
"""Below it orjson writes floats without a positive exponent."""


def quickly_storable(value: object, max_nesting: int) -> bytes | None:
    """The JSON text of a value that can surely be stored, as `canonical_json` gives it; None says to look closer.

    Nearly all values pass: orjson itself refuses lone surrogates and integers over 64 bits, writes NaN as null and NUL
    as an escape, and what has no more brackets than may be nested is not nested deeper.
    """
    if value is None:
        return b"null"
    try:
        text = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return None
    if b"null" in text or b"\\u0000" in text or text.count(b"{") + text.count(b"[") > max_nesting:
        return None
    return _faithful(value, text)


def unstorable(value: object, place: str, max_nesting: int) -> Iterator[FieldError]:
    """The faults of one decoded JSON value, each with its dotted place; nothing where it can be stored.

    Nesting counts the arrays and objects around a value inside `tags` or `fields`, the outermost being 1.
    """
    if isinstance(value, str):
        yield from _unstorable_text(value, place)
    elif isinstance(value, float):
        if not math.isfinite(value):
            yield FieldError(place, "NaN, Infinity and numbers beyond a double cannot be stored")
    elif isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            yield FieldError(place, "an integer must fit in 64 bits")
    elif isinstance(value, dict | list):
        yield from _unstorable_inside(value, place, max_nesting)


def _unstorable_inside(value: dict[str, object] | list[object], place: str, max_nesting: int) -> Iterator[FieldError]:
    if max_nesting == 0:
        yield FieldError(place, "arrays and objects are nested too deep")
        return
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from unstorable(item, f"{place}.{index}", max_nesting - 1)
        return
    for key, item in value.items():
        yield from _unstorable_text(key, place)
        yield from unstorable(item, f"{place}.{key}", max_nesting - 1)


def _unstorable_text(text: str, place: str) -> Iterator[FieldError]:
    if "\0" in text:
        yield FieldError(place, "the NUL character cannot be stored")
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        yield FieldError(place, "a lone surrogate is not a character and cannot be stored")


def canonical_json(value: object) -> bytes:
    """A storable value as the JSON text that PostgreSQL's jsonb gives back as the same number types.

    jsonb writes 1e23 as 100000000000000000000000, which a reader takes for an integer; written as
    100000000000000000000000.0 it stays the float that was sent. And jsonb has no negative zero: it becomes 0.0 here, so
    that the answer to a write already says what is stored.
    """
    return _faithful(value, orjson.dumps(value))


def _faithful(value: object, text: bytes) -> bytes:
    # orjson writes large floats as 1e23; a string that looks so, or like a negative zero, costs time alone.
    # Which of the two forms of an exponent it is, is up to orjson's version.
    zeros = text.translate(_DIGITS_TO_ZERO)
    if _EXPONENT not in zeros and _SIGNED_EXPONENT not in zeros and _NEGATIVE_ZERO not in text:
        return text
    return orjson.dumps(_with_plain_floats(value))


def _with_plain_floats(value: object) -> object:
    if isinstance(value, float):
        return orjson.Fragment(_without_exponent(value)) if _is_odd(value) else value
    if isinstance(value, list):
        return [_with_plain_floats(item) for item in value]
    if isinstance(value, dict):
        return {key: _with_plain_floats(item) for key, item in value.items()}
    return value


def _is_odd(number: float) -> bool:
    """Whether jsonb would give it back as an integer, or a negative zero as another one."""
    return abs(number) >= _EXPONENTS_FROM or not number


def _without_exponent(number: float) -> str:
    digits = format(Decimal(repr(number or 0.0)), "f")
    return digits if "." in digits else f"{digits}.0"


def surely_canonical(values: object, text: bytes, max_nesting: int) -> bool:
    """Whether all of `values`, as orjson decoded them and wrote them into `text`, can be stored as they were written.

    False says to look closer. orjson has already refused lone surrogates and NaN.
    """
    return text.count(b"{") + text.count(b"[") <= max_nesting and _is_kept(values, text)


def all_surely_canonical(values: object, texts: Sequence[bytes], max_nesting: int) -> bool:
    """What `surely_canonical` says of many texts, looked at together."""
    text = b"".join(texts)
    brackets: Iterable[int] = map(bytes.count, texts, repeat(b"{"))
    if b"[" in text:
        brackets = map(add, brackets, map(bytes.count, texts, repeat(b"[")))
    return max(brackets, default=0) <= max_nesting and _is_kept(values, text)


def _is_kept(values: object, text: bytes) -> bool:
    """Whether there is no NUL, and no float that jsonb would turn into something else.

    An integer beyond 64 bits is among these floats: orjson decodes it as one. Each search is led by one for a single
    byte that most texts lack, as that costs a fifth.
    """
    if b"\\" in text and b"\\u0000" in text:
        return False
    if (_LARGE_FLOAT_BYTE in text and _LARGE_FLOAT in text) or (b"-" in text and _NEGATIVE_ZERO in text):
        return not _has_odd_float(values)  # a string may look like one
    return True


def _has_odd_float(value: object) -> bool:
    if isinstance(value, float):
        return _is_odd(value)
    if isinstance(value, dict):
        return any(map(_has_odd_float, value.values()))
    return isinstance(value, list | tuple) and any(map(_has_odd_float, value))

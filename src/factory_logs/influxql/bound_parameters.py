"""Read bound parameters: `$name` in a query, its value in `params` (docs/reference/influxql.md#bound-parameters).

A value replaces exactly one token, a string, a number or a name. So it cannot change the structure of the statement.
"""

import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal

from factory_logs.influxql import lexer
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.lexer import format_duration

Parameters = Mapping[str, tuple[str, str]]
"""The kind and text of the token for each parameter. If a value cannot be bound, the kind is PARAMETER and the text is
an error message."""

NONE: Parameters = {}


def parse_parameters(text: str) -> Parameters:
    """Return the parameters in a JSON object. Raises InfluxqlError."""
    try:
        # Numbers stay text, because only the text shows whether a number is an integer.
        document = json.loads(text, parse_int=_Number, parse_float=_Number, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InfluxqlError(f"error parsing query parameters: {error}") from None
    if not isinstance(document, dict):
        raise InfluxqlError("error parsing query parameters: expected a JSON object")
    for value in document.values():
        if isinstance(value, _Number) and (bound := _number(value))[0] == lexer.PARAMETER:
            raise InfluxqlError(f"error parsing json value: {bound[1]}")
    tokens = {name: _bound(value) for name, value in document.items()}
    return {name: (kind, _SURROGATE.sub("\ufffd", token)) for name, (kind, token) in tokens.items()}


_SURROGATE = re.compile("[\ud800-\udfff]")
"""Lone surrogates, which JSON can contain but UTF-8 cannot. Go replaces them too."""
_LONGEST_INTEGER = len(str(-(2**63)))


class _Number(str):
    __slots__ = ()


def _refuse_constant(name: str) -> None:
    raise ValueError(f"invalid number {name}")


def _bound(value: object) -> tuple[str, str]:
    match value:
        case _Number():
            return _number(value)
        case str():
            return lexer.STRING, value
        case bool():
            return ("TRUE" if value else "FALSE"), ""
        case dict():
            return _typed(value)
    return _unbound(f"unable to bind parameter with type {'<nil>' if value is None else '[]interface {}'}")


def _unbound(message: str) -> tuple[str, str]:
    return lexer.PARAMETER, message


def _number(text: str) -> tuple[str, str]:
    if "." not in text:
        # A longer integer is not converted, because Python takes quadratic time for that.
        if "e" in text.lower() or len(text) > _LONGEST_INTEGER or not -(2**63) <= int(text) < 2**63:
            return _unbound(f'strconv.ParseInt: parsing "{text}": invalid syntax')
        return lexer.INTEGER, text
    number = float(text)
    if not math.isfinite(number):
        return _unbound(f'strconv.ParseFloat: parsing "{text}": value out of range')
    # Not the digits of the text: an exponent of a few digits can stand for a gigabyte of zeros.
    return lexer.NUMBER, format(Decimal(repr(number)), "f")


def _typed(value: Mapping[str, object]) -> tuple[str, str]:
    if len(value) != 1:
        return _unbound("bound object parameter value must have exactly one entry")
    ((kind, content),) = value.items()
    is_text = isinstance(content, str) and not isinstance(content, _Number)
    match kind:
        case "ident" | "identifier":
            return (lexer.IDENTIFIER, str(content)) if is_text else _unbound("identifier must be a string value")
        case "regex":
            return (lexer.REGEX, str(content)) if is_text else _unbound("regex literal must be a string value")
        case "string":
            return (lexer.STRING, str(content)) if is_text else _unbound("string literal must be a string value")
        case "float" | "number":
            if not isinstance(content, _Number):
                return _unbound("number literal must be a float value")
            bound = _number(content)
            return bound if bound[0] == lexer.PARAMETER else (lexer.NUMBER, bound[1])
        case "int" | "integer":
            if not isinstance(content, _Number) or "." in content:
                return _unbound("integer literal must be an integer value")
            return _number(content)
        case "duration":
            if is_text:
                return lexer.DURATION, str(content)
            if isinstance(content, _Number) and content.isdigit():
                bound = _number(content)
                return bound if bound[0] == lexer.PARAMETER else (lexer.DURATION, format_duration(int(content)))
            return _unbound("duration literal must be a string or integer value")
    return _unbound(f"unknown bind object type: {kind}")

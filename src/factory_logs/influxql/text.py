"""Format expressions, names and times as text. Parsing it returns an equal expression, apart from digits of floats."""

import re
from datetime import UTC, datetime, timedelta

from factory_logs.influxql.ast import (
    Binary,
    Call,
    Distinct,
    Duration,
    Expression,
    Literal,
    Paren,
    Reference,
    Regex,
    Time,
    Type,
    Wildcard,
)
from factory_logs.influxql.lexer import KEYWORDS, format_duration

_BARE = re.compile("[A-Za-z_][A-Za-z0-9_]*")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def quote_string(text: str) -> str:
    """Return a string literal."""
    return "'" + text.replace("\\", "\\\\").replace("\n", "\\n").replace("'", "\\'") + "'"


def quote_identifier(name: str) -> str:
    """Return a name, in quotes if it needs them."""
    if _BARE.fullmatch(name) and name.upper() not in KEYWORDS:
        return name
    return '"' + name.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"') + '"'


def format_time(nanoseconds: int, zone: object = UTC) -> str:
    """Return a time in the format of RFC 3339, with as many fractional digits as needed.

    A time outside the years 1 to 9999, which only an expression can have, is given in nanoseconds.
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    try:
        moment = _EPOCH + timedelta(seconds=seconds)
    except OverflowError:
        return f"{nanoseconds}ns"
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    if zone is UTC:
        return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
    local = moment.astimezone(zone)  # type: ignore[arg-type]
    offset = local.strftime("%z")
    return f"{local:%Y-%m-%dT%H:%M:%S}{fraction}" + ("Z" if offset == "+0000" else f"{offset[:3]}:{offset[3:5]}")


def format_expression(expression: Expression) -> str:
    """Return the text of an expression."""
    match expression:
        case Reference(name, None):
            return quote_identifier(name)
        case Reference(name, Type() as kind):
            return f"{quote_identifier(name)}::{kind.value}"
        case Call(name, arguments):
            return f"{name}({', '.join(map(format_expression, arguments))})"
        case Distinct(name):
            return f"DISTINCT {quote_identifier(name)}"
        case Wildcard(None):
            return "*"
        case Wildcard(Type() as kind):
            return f"*::{kind.value}"
        case Regex(pattern):
            return "/" + pattern.replace("/", "\\/") + "/"
        case Literal(value):
            return _literal(value)
        case Duration(nanoseconds):
            return format_duration(nanoseconds)
        case Time(nanoseconds):
            return f"'{format_time(nanoseconds)}'"
        case Binary(operator, left, right):
            return f"{format_expression(left)} {operator} {format_expression(right)}"
        case Paren(inner):
            return f"({format_expression(inner)})"
    return ""


def _literal(value: object) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str():
            return quote_string(value)
        case float():
            return f"{value:.3f}"  # as in InfluxDB's errors
    return "nil" if value is None else str(value)

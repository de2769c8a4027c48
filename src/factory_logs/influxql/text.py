"""Format expressions and statements as text. Parsing this text returns an equal tree."""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from factory_logs.influxql.ast import (
    Binary,
    Call,
    Distinct,
    Duration,
    Expression,
    Fill,
    KeyCondition,
    Literal,
    Paren,
    Reference,
    Regex,
    Select,
    SelectField,
    Show,
    Source,
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
            text = format(Decimal(repr(value)), "f")
            return text if "." in text else f"{text}.0"
    return "nil" if value is None else str(value)


def format_field(field: SelectField) -> str:
    """Return the text of a column in SELECT."""
    text = format_expression(field.expression)
    return f"{text} AS {quote_identifier(field.alias)}" if field.alias else text


def format_source(source: Source) -> str:
    """Return the text of a measurement or a subquery."""
    if isinstance(source, Select):
        return f"({format_select(source)})"
    parts = [quote_identifier(part) if part else "" for part in (source.database, source.policy)]
    last = quote_identifier(source.name) if source.regex is None else format_expression(source.regex)
    if parts[0]:
        return f"{parts[0]}.{parts[1]}.{last}"
    return f"{parts[1]}.{last}" if parts[1] else last


def format_select(select: Select) -> str:
    """Return the text of a SELECT statement."""
    parts = [f"SELECT {', '.join(map(format_field, select.fields))}"]
    if select.into is not None:
        parts.append(f"INTO {format_source(select.into)}")
    parts.append(f"FROM {', '.join(map(format_source, select.sources))}")
    if select.condition is not None:
        parts.append(f"WHERE {format_expression(select.condition)}")
    if select.dimensions:
        parts.append(f"GROUP BY {', '.join(map(format_expression, select.dimensions))}")
    if select.fill is Fill.NUMBER:
        parts.append(f"fill({_literal(select.fill_value)})")
    elif select.fill is not Fill.NULL:
        parts.append(f"fill({select.fill.value})")
    parts += _ending(select)
    limits = (("SLIMIT", select.series_limit), ("SOFFSET", select.series_offset))
    parts += [f"{name} {value}" for name, value in limits if value]
    if select.zone is not None:
        parts.append(f"tz({quote_string(select.zone)})")
    return " ".join(parts)


def format_show(show: Show) -> str:
    """Return the text of a SHOW statement."""
    head = show.shown.value
    if show.exact:
        head = head.removesuffix("CARDINALITY") + "EXACT CARDINALITY"
    parts = [f"SHOW {head}"]
    if show.database:
        parts.append(f"ON {quote_identifier(show.database)}")
    if show.sources:
        parts.append(f"FROM {', '.join(map(format_source, show.sources))}")
    if show.with_measurement is not None:
        operator = "=" if show.with_measurement.regex is None else "=~"
        parts.append(f"WITH MEASUREMENT {operator} {format_source(show.with_measurement)}")
    if show.key is not None:
        parts.append(_key(show.key))
    if show.condition is not None:
        parts.append(f"WHERE {format_expression(show.condition)}")
    if show.dimensions:
        parts.append(f"GROUP BY {', '.join(map(format_expression, show.dimensions))}")
    return " ".join(parts + _ending(show))


def _key(key: KeyCondition) -> str:
    if key.regex is not None:
        return f"WITH KEY {key.operator} {format_expression(key.regex)}"
    names = ", ".join(map(quote_identifier, key.names))
    return f"WITH KEY IN ({names})" if key.operator == "IN" else f"WITH KEY {key.operator} {names}"


def _ending(statement: Select | Show) -> list[str]:
    parts = [f"ORDER BY time {'DESC' if statement.descending else 'ASC'}"] if statement.is_sorted else []
    limits = (("LIMIT", statement.limit), ("OFFSET", statement.offset))
    return parts + [f"{name} {value}" for name, value in limits if value]

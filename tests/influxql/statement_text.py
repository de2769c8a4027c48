"""Format statements as text, so that tests can compare the tree of this text with the statement."""

from factory_logs.influxql.ast import Fill, KeyCondition, Literal, Select, SelectField, Show, Source
from factory_logs.influxql.text import format_expression, quote_identifier, quote_string


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
        parts.append(f"fill({format_expression(Literal(select.fill_value))})")
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

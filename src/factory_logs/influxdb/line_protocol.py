"""Parse one line of InfluxDB's line protocol into a point.

    measurement[,tag=value]* field=value[,field=value]* [time]

The grammar is that of InfluxDB 1.6's parser, as observed, and the unsigned integers of later versions. A comma, a space
or an equals sign after a backslash belongs to the name, and in a measurement or field name also a quote. A backslash
before any other character is a backslash. The parser is written by hand because existing libraries parse one line at a
time, reject valid escapes or keep the first of two equal fields (docs/how-to/moving-from-influxdb.md).

Most lines contain no backslash and are split at their separators. The others are read with regular expressions without
backtracking, so each line takes linear time.
"""

import re
from typing import NamedTuple

FieldValue = bool | int | float | str

SHOWN_CHARACTERS = 120
"""The maximum number of characters of a bad line in an error."""

INT_MIN, INT_MAX, UINT_MAX = -(2**63), 2**63 - 1, 2**64 - 1
EARLIEST_NS, LATEST_NS = -(2**63) + 2, 2**63 - 2
"""The range of times in InfluxDB: 1677-09-21 to 2262-04-11."""

PRECISIONS = {
    "n": 1,
    "ns": 1,
    "u": 10**3,
    "us": 10**3,
    "µ": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
"""The units of a line's time, in nanoseconds."""

NAME_CHARACTER = r"(?:\\[,= ]|[^,= ])"
"""A regular expression for one character of a tag name or field name. The following constants are regular expressions
too."""
HEAD = r"(?:\\[,= ]|[^ ])++"
IN_STRING = r'(?:\\["\\]|[^"])*+'
PLAIN_INTEGER = "(?:-?[1-9][0-9]{0,17}+|0)"
"""The formats that most clients write, whose text is also valid JSON."""
PLAIN_FLOAT = r"-?(?:0|[1-9][0-9]{0,19}+)(?:\.[0-9]{1,30}+)?+"
PLAIN_TIME = "-?[1-9][0-9]{0,18}+|0"
NOT_PLAIN = r"\x00-\x1f\x7f\ud800-\udfff\\"
"""Characters, for a character class, that JSON would escape or that cannot be stored."""

_NAME = f"{NAME_CHARACTER}++"
_ANY_NAME = re.compile(_NAME)
BEFORE_A_LINE = " \t"
"""The characters that InfluxDB skips before a line. Elsewhere a tab is part of a name."""
_HEAD = re.compile(HEAD)
_MEASUREMENT = re.compile(r"(?:\\[, =]|[^, ])++")
_STRING = f'"{IN_STRING}"'
_FIELD = re.compile(rf'({_NAME})=({_STRING}|[^", ]++)(,| |\Z)')
_FIELD_STRING = re.compile(_STRING)
_ESCAPED_IN_NAME = re.compile(r"\\([,= ])")
_ESCAPED_OR_QUOTE = re.compile(r'\\([,= "])')
_ESCAPED_IN_STRING = re.compile(r'\\(["\\])')
_INTEGER = re.compile(r"-?[0-9]{1,40}")
_FLOAT = re.compile(r"-?(?:[0-9]++(?:\.[0-9]*+)?|\.[0-9]++)(?:[eE][+-]?[0-9]{1,9})?")
BOOLEANS = {word: word[0] in "tT" for word in ("t", "T", "true", "True", "TRUE", "f", "F", "false", "False", "FALSE")}


class LineError(ValueError):
    """The line is not valid line protocol. The message is InfluxDB's, if it has one."""


class SeriesKey(NamedTuple):
    """The measurement and the tags of a series."""

    measurement: str
    tags: dict[str, str]


class Line(NamedTuple):
    """A line whose series and time are still text. `head` is the text before the fields."""

    head: str
    fields: dict[str, FieldValue]
    time: str


def split_head(line: str) -> tuple[str, str]:
    """Return the text before and after the first space outside a name. Raises LineError if the second part is empty."""
    line = line.lstrip(BEFORE_A_LINE).rstrip(" ")
    if "\\" in line:
        matched = _HEAD.match(line)
        end = matched.end() if matched else 0
    else:
        end = line.find(" ")
    rest = line[end:].lstrip(" ")
    if end < 0 or not rest:
        raise LineError("missing fields")
    return line[:end], rest


def parse_line(line: str) -> Line:
    """Return the parts of a line without its line end. If a field occurs twice, the last value is used, as in InfluxDB.
    Raises LineError."""
    head, rest = split_head(line)
    return Line(head, *parse_rest(rest))


def parse_rest(rest: str) -> tuple[dict[str, FieldValue], str]:
    """Return fields and time of a line without its head. Raises LineError."""
    if '"' in rest or "\\" in rest:
        fields, end = _quoted_fields(rest)
        return fields, rest[end:].lstrip(" ")
    text, _, time = rest.partition(" ")
    if "," not in text:  # there is one field, as in each line of a dump
        key, equals, value = text.partition("=")
        if not (key and value):
            raise LineError(_missing(key, equals))
        return {key: parse_value(value)}, time.lstrip(" ")
    fields = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not (key and value):
            raise LineError(_missing(key, equals))
        fields[key] = parse_value(value)
    return fields, time.lstrip(" ")


def _missing(key: str, equals: str) -> str:
    if not equals:
        return "invalid field format"
    return "missing field value" if key else "missing field key"


def _quoted_fields(text: str) -> tuple[dict[str, FieldValue], int]:
    """Return the fields of a text with strings or escaped names, and the index of their end."""
    fields: dict[str, FieldValue] = {}
    end = 0
    while True:
        field = _FIELD.match(text, end)
        if field is None:
            raise _bad_field(text, end)
        key, value, separator = field.groups()
        if "\\" in key:
            key = _ESCAPED_OR_QUOTE.sub(r"\1", key)
        fields[key] = parse_value(value)
        end = field.end()
        if separator != ",":
            return fields, end


def _bad_field(text: str, start: int) -> LineError:
    name = _ANY_NAME.match(text, start)
    end = name.end() if name else start
    following = text[end : end + 2]
    if following[:1] != "=":
        return LineError("invalid field format")
    if name is None:
        return LineError("missing field key")
    if following[1:] == '"':
        closed = _FIELD_STRING.match(text, end + 1) is not None
        return LineError("invalid field format" if closed else "unbalanced quotes")
    return LineError("missing field value")


def parse_series(head: str) -> SeriesKey:
    """Return measurement and tags without escapes. Raises LineError, also for a repeated tag, as InfluxDB does."""
    if "\\" not in head:
        measurement, *parts = head.split(",")
        pairs = [part.split("=") for part in parts]
    else:
        measurement, pairs = _split_escaped(head)
    if "\\" in measurement:
        measurement = _ESCAPED_OR_QUOTE.sub(r"\1", measurement)
    if not measurement:
        raise LineError("missing measurement")
    tags: dict[str, str] = {}
    for pair in pairs:
        if not pair[0]:
            raise LineError("missing tag key")
        if len(pair) == 1 or not pair[1]:
            raise LineError("missing tag value")
        if len(pair) > 2:
            raise LineError("invalid tag format")
        if pair[0] in tags:
            raise LineError("duplicate tags")
        tags[pair[0]] = pair[1]
    return SeriesKey(measurement, tags)


def _split_escaped(head: str) -> tuple[str, list[list[str]]]:
    matched = _MEASUREMENT.match(head)
    measurement = matched[0] if matched else ""
    position = len(measurement)
    pairs: list[list[str]] = []
    while position < len(head):
        pair: list[str] = []
        while True:  # at this position, `head` has a comma or an equals sign
            name = _ANY_NAME.match(head, position + 1)
            pair.append(_unescaped(name[0]) if name else "")
            position += 1 + (len(name[0]) if name else 0)
            if head[position : position + 1] != "=":
                break
        pairs.append(pair)
    return measurement, pairs


def parse_value(text: str) -> FieldValue:
    """Return the value of a field. `text` must not be empty. Raises LineError."""
    last = text[-1]
    if last == '"' and text[0] == '"' and len(text) > 1:
        text = text[1:-1]
        return _ESCAPED_IN_STRING.sub(r"\1", text) if "\\" in text else text
    if last == "i" or last == "u":
        return _integer(text, INT_MAX if last == "i" else UINT_MAX)
    if text in BOOLEANS:
        return BOOLEANS[text]
    if _FLOAT.fullmatch(text) is None:
        raise LineError("invalid number" if text[0] in "-.0123456789" else "invalid boolean")
    number = float(text)
    if number - number != 0.0:  # infinite
        raise LineError("invalid float: beyond 64 bits")
    return number


def _integer(text: str, highest: int) -> int:
    digits = text[:-1]
    if _INTEGER.fullmatch(digits) is None:
        raise LineError("invalid number")
    number = int(digits)
    if not (INT_MIN if highest == INT_MAX else 0) <= number <= highest:
        raise LineError(f"unable to parse integer {digits}: value out of range")
    return number


def parse_time(text: str, unit_ns: int) -> int:
    """Return the time of a line in nanoseconds since 1970. `text` must not be empty. Raises LineError."""
    if _INTEGER.fullmatch(text) is None:
        raise LineError("point is invalid" if " " in text else "bad timestamp")
    time = int(text) * unit_ns
    if not EARLIEST_NS <= time <= LATEST_NS:
        raise LineError(f"time outside range {EARLIEST_NS} - {LATEST_NS}")
    return time


def _unescaped(name: str) -> str:
    return _ESCAPED_IN_NAME.sub(r"\1", name) if "\\" in name else name


def shown(line: str) -> str:
    """Return a bad line, shortened for an error message."""
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[:SHOWN_CHARACTERS]}…"

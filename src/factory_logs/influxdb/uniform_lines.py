"""Parse many lines of the same form column by column, at a fifth of the cost of parsing each line.

Clients usually write the same tags and fields in the same order again and again. A LineForm is derived from one line
and compiled to a regular expression. If all lines of a text have the form, one search returns their columns. The
columns are converted by a few calls into C each. Only plain lines match: no escapes, no leading zeros, one space
between the parts. Lines that match no form are left to PointParser, so this module rejects nothing. For matching
lines PointParser would return the same logs (tests/influxdb/test_uniform_lines.py), but with the fields in the order
in which jsonb stores them. `python -m benchmarks.batch_cpu` shows what this saves.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import orjson

from factory_logs.errors import BadRequestError
from factory_logs.influxdb.line_protocol import (
    BOOLEANS,
    EARLIEST_NS,
    LATEST_NS,
    NOT_PLAIN,
    PLAIN_FLOAT,
    PLAIN_INTEGER,
    PLAIN_TIME,
    FieldValue,
    LineError,
    parse_line,
    parse_series,
)
from factory_logs.influxdb.mapping import (
    COLUMNS_OF_LOGS,
    IMEI,
    REPAIR_ID,
    check_text,
    series_origin,
)
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.schemas.json_values import canonical_json, jsonb_order
from factory_logs.schemas.record_limits import RecordLimits

FEWEST_LINES = 16
"""The minimum number of lines for which a form is derived."""
MAX_FORMS = 8
"""The maximum number of forms for one request; each form must be compiled."""
MAX_FORM_CHARACTERS = 4000
MAX_FORM_PARTS = 40

_TAG = rf'([^,= "{NOT_PLAIN}]++)'
_OWN_COLUMNS = {"product_imei": f"({IMEI.pattern})", "repair_id": f"({REPAIR_ID.pattern})"}
_TIME = f"({PLAIN_TIME})"
_JSON_BOOLEANS = {word: "true" if value else "false" for word, value in BOOLEANS.items()}


class _Kind(NamedTuple):
    """The format of one value type in line protocol, the quote around it in JSON, and the conversion."""

    pattern: str
    quote: str
    texts: Callable[[Sequence[str]], Sequence[str]]


def _float_texts(values: Sequence[str]) -> list[str]:
    return canonical_json(list(map(float, _numbers(values)))).decode()[1:-1].split(",")


def _boolean_texts(values: Sequence[str]) -> list[str]:
    return list(map(_JSON_BOOLEANS.__getitem__, values))


def _same(values: Sequence[str]) -> Sequence[str]:
    return values


_KINDS: dict[type[FieldValue], _Kind] = {
    float: _Kind(rf"({PLAIN_FLOAT}(?:[eE][+-]?[0-9]{{1,2}}+)?+)", "", _float_texts),
    int: _Kind(f"({PLAIN_INTEGER})i", "", _same),
    bool: _Kind(f"({'|'.join(sorted(BOOLEANS, key=len, reverse=True))})", "", _boolean_texts),
    str: _Kind(f'"([^"{NOT_PLAIN}]*+)"', '"', _same),
}


class LineForm:
    """The text that similar lines have in common, and the conversion of their other text to logs."""

    def __init__(self, app_name: str, tags: Sequence[str], fields: Sequence[tuple[str, _Kind]], *, timed: bool) -> None:
        self.timed = timed
        self._app_name = app_name
        self._own = {name: position for position, name in enumerate(tags) if name in _OWN_COLUMNS}
        self._others = [position for position, name in enumerate(tags) if name not in _OWN_COLUMNS]
        self._tags = _JsonObjects((tags[position], '"') for position in self._others)
        # PostgreSQL need not sort the fields if they have the order of jsonb.
        in_order = sorted(enumerate(fields, len(tags)), key=lambda field: jsonb_order(field[1][0]))
        self._values = [(position, kind) for position, (_, kind) in in_order]
        self._fields = _JsonObjects((name, kind.quote) for _, (name, kind) in in_order)
        self._start = f"{app_name}," if tags else f"{app_name} "
        head = re.escape(app_name) + "".join(f",{re.escape(tag)}={_OWN_COLUMNS.get(tag, _TAG)}" for tag in tags)
        rest = ",".join(f"{re.escape(name)}={kind.pattern}" for name, kind in fields)
        # Compiled once for all requests: `re` caches compiled expressions. The empty group of lines without a time
        # makes `findall` return tuples even if there is only one field.
        self._pattern = re.compile(f"^{head} {rest}{f' {_TIME}' if timed else '()'}$", re.MULTILINE)
        self.match = self._pattern.fullmatch

    def match_all(self, text: str) -> list[tuple[str, ...]] | None:
        """Return the groups of each line, or None if not all lines have this form. A line end must be the end of a
        line, also in a string."""
        line_ends = text.count("\n")
        if text.count(f"\n{self._start}") < line_ends:
            return None
        rows: list[tuple[str, ...]] = self._pattern.findall(text)
        return rows if len(rows) == line_ends + 1 else None

    def logs(self, rows: Sequence[tuple[str, ...]], limits: RecordLimits, unit_ns: int, now_ns: int) -> NewLogs | None:
        """Return the logs for the matched groups, or None if PointParser must parse the lines."""
        count, columns = len(rows), list(zip(*rows, strict=True))
        times = _numbers(columns[-1]) if self.timed else [now_ns] * count
        if self.timed and unit_ns != 1:
            times = [time * unit_ns for time in times]
        if min(times) < EARLIEST_NS or max(times) > LATEST_NS:
            return None
        tags = self._tags.texts([columns[position] for position in self._others], count)
        fields = self._fields.texts([kind.texts(columns[position]) for position, kind in self._values], count)
        if not limits.surely_allow(max(map(len, tags)) + max(map(len, fields))):
            return None
        imei, repair = self._own.get("product_imei"), self._own.get("repair_id")
        return NewLogs(
            [self._app_name] * count,
            [None] * count if imei is None else list(columns[imei]),
            [None] * count if repair is None else list(map(int, columns[repair])),
            [time // 1000 for time in times],
            [*tags] if self._others else [None] * count,
            [*fields],
        )


class _JsonObjects:
    """The JSON texts of objects with the same names."""

    def __init__(self, members: Iterable[tuple[str, str]]) -> None:
        """Each member has a name, and a quote or nothing around its values."""
        joined = ",".join(f"{canonical_json(name).decode()}:{quote}\0{quote}" for name, quote in members)
        self._between = f"{{{joined}}}".split("\0")

    def texts(self, columns: Sequence[Sequence[str]], count: int) -> list[bytes]:
        """Return `count` objects with the values of these columns, in UTF-8."""
        if all(column.count(column[0]) == count for column in columns):
            return self._joined([column[:1] for column in columns], 1) * count
        return self._joined(columns, count)

    def _joined(self, columns: Sequence[Sequence[str]], count: int) -> list[bytes]:
        pieces: list[Iterable[str]] = [repeat(self._between[0], count)]
        for column, text in zip(columns, self._between[1:], strict=True):
            pieces += [column, repeat(text, count)]
        return list(map(str.encode, map("".join, zip(*pieces, strict=True))))


def _numbers(texts: Sequence[str]) -> list[Any]:
    """Return the numbers, all of which are valid JSON. Integers beyond 64 bits become floats."""
    numbers: list[Any] = orjson.loads(f"[{','.join(texts)}]")
    return numbers


def derive_form(line: str) -> LineForm | None:
    """Return the form of a line, or None if the line is not plain or is a comment."""
    if "\\" in line or line[:1] == "#":
        return None
    try:
        check_text(line, MAX_FORM_CHARACTERS)
        head, fields, time = parse_line(line)
        series = parse_series(head)
        series_origin(series)
    except (LineError, BadRequestError):
        return None
    if not COLUMNS_OF_LOGS.isdisjoint(fields) or len(fields) + len(series.tags) > MAX_FORM_PARTS:
        return None
    kinds = [(name, _KINDS[type(value)]) for name, value in fields.items()]
    form = LineForm(series.measurement, list(series.tags), kinds, timed=time != "")
    return form if form.match(line) else None


class UniformLines(NamedTuple):
    """The logs of lines with a common form, each form with the indexes of its lines; and the indexes of the other
    lines, which PointParser must parse."""

    logs: list[tuple[NewLogs, list[int]]]
    others: list[int]


class UniformLineReader:
    """Parses the plain lines of one request, and leaves the others to PointParser."""

    def __init__(self, limits: RecordLimits, max_characters: int, unit_ns: int, now_ns: int) -> None:
        """A line longer than `max_characters` may be truncated, so this class does not parse it.

        `unit_ns` is the unit of times in the lines. A line without a time gets `now_ns`.
        """
        self._limits = limits
        self._max_characters = max_characters
        self._unit_ns = unit_ns
        self._now_ns = now_ns
        self._forms: list[LineForm] = []
        self.used_now = False

    def read_text(self, text: str) -> NewLogs | None:
        """Return the logs of the lines of a text, or None unless all of them certainly have one form.

        No line may be too long, and the text must begin at the start of a line.
        """
        if text.count("\n") + 1 < FEWEST_LINES:
            return None
        line = text[: text.find("\n")]
        form = next((form for form in self._forms if form.match(line)), None) or self._derive_form(line)
        if form is None:
            return None
        rows = form.match_all(text)
        return None if rows is None else self._logs(form, rows)

    def read(self, lines: Sequence[str]) -> UniformLines:
        """Return the logs of the lines that have a common form, and the indexes of the other lines."""
        found = UniformLines([], [])
        waiting: Sequence[int] = range(len(lines))
        if len(lines) >= FEWEST_LINES and max(map(len, lines)) <= self._max_characters:
            known = iter(self._forms[:])
            while len(waiting) >= FEWEST_LINES:
                form = next(known, None) or self._derive_form(lines[waiting[len(waiting) // 2]])
                if form is None:
                    break
                waiting = self._read_matching(form, lines, waiting, found)
        found.others.extend(waiting)
        found.others.sort()
        return found

    def _derive_form(self, line: str) -> LineForm | None:
        form = derive_form(line) if len(self._forms) < MAX_FORMS else None
        if form is not None:
            self._forms.append(form)
        return form

    def _read_matching(
        self, form: LineForm, lines: Sequence[str], waiting: Sequence[int], found: UniformLines
    ) -> Sequence[int]:
        """Add the logs of the lines of this form to `found`. Return the indexes of the lines of other forms."""
        matches = [form.match(lines[index]) for index in waiting]
        rows = [match.groups() for match in matches if match is not None]
        indexes = [index for index, match in zip(waiting, matches, strict=True) if match is not None]
        logs = self._logs(form, rows) if rows else None
        if logs is None:
            found.others.extend(indexes)
        else:
            found.logs.append((logs, indexes))
        return [index for index, match in zip(waiting, matches, strict=True) if match is None]

    def _logs(self, form: LineForm, rows: Sequence[tuple[str, ...]]) -> NewLogs | None:
        """Return the logs for the matched groups, or None if PointParser must parse the lines."""
        logs = form.logs(rows, self._limits, self._unit_ns, self._now_ns)
        if logs is not None:
            self.used_now = self.used_now or not form.timed
        return logs

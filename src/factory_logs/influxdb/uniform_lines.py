"""Parse many lines of the same form column by column, at a third of the cost of parsing each line.

Clients usually write the same tags and fields in the same order again and again. A LineForm is derived from one line
and compiled to a regular expression. The matches are converted column by column, mostly in C. Only plain lines match:
no escapes, no leading zeros, one space between the parts. Lines that match no form are left to PointParser, so this
module rejects nothing. For matching lines PointParser would return the same logs
(tests/influxdb/test_uniform_lines.py). `python -m benchmarks.influx` shows what this saves.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

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
    timestamp_from_ns,
)
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.json_values import canonical_json
from factory_logs.schemas.record_limits import RecordLimits

FEWEST_LINES = 16
"""The minimum number of lines for which a form is derived."""
MAX_FORMS = 8
"""The maximum number of forms for one request; each form must be compiled."""
MAX_FORM_CHARACTERS = 4000
MAX_FORM_PARTS = 40
_BYTES_OF_A_CHARACTER = 4

_TAG = rf'([^,= "{NOT_PLAIN}]+)'
_OWN_COLUMNS = {"product_imei": f"({IMEI.pattern})", "repair_id": f"({REPAIR_ID.pattern})"}
_TIME = f"({PLAIN_TIME})"
_JSON_BOOLEANS = {word: "true" if value else "false" for word, value in BOOLEANS.items()}


class _Kind(NamedTuple):
    """The formats of one value type in line protocol and in JSON, and the conversion."""

    pattern: str
    json: str
    texts: Callable[[Sequence[str]], Iterable[str]]


def _float_texts(values: Sequence[str]) -> list[str]:
    return canonical_json(list(map(float, values))).decode()[1:-1].split(",")


def _boolean_texts(values: Sequence[str]) -> Iterable[str]:
    return map(_JSON_BOOLEANS.__getitem__, values)


def _same(values: Sequence[str]) -> Sequence[str]:
    return values


_KINDS: dict[type[FieldValue], _Kind] = {
    float: _Kind(rf"({PLAIN_FLOAT}(?:[eE][+-]?[0-9]{{1,2}})?)", "%s", _float_texts),
    int: _Kind(f"({PLAIN_INTEGER})i", "%s", _same),
    bool: _Kind(f"({'|'.join(sorted(BOOLEANS, key=len, reverse=True))})", "%s", _boolean_texts),
    str: _Kind(f'"([^"{NOT_PLAIN}]*)"', '"%s"', _same),
}


class LineForm:
    """The text that similar lines have in common, and the conversion of their other text to logs."""

    def __init__(self, app_name: str, tags: Sequence[str], fields: Sequence[tuple[str, _Kind]], *, timed: bool) -> None:
        self.timed = timed
        self._app_name = app_name
        self._kinds = [kind for _, kind in fields]
        self._own = {name: position for position, name in enumerate(tags) if name in _OWN_COLUMNS}
        self._others = [position for position, name in enumerate(tags) if name not in _OWN_COLUMNS]
        self._fields_start, self._fields_end = len(tags), len(tags) + len(fields)
        self._tags_json = _object((tags[position], '"%s"') for position in self._others)
        self._fields_json = _object((name, kind.json) for name, kind in fields)
        head = re.escape(app_name) + "".join(f",{re.escape(tag)}={_OWN_COLUMNS.get(tag, _TAG)}" for tag in tags)
        rest = ",".join(f"{re.escape(name)}={kind.pattern}" for name, kind in fields)
        # Compiled once for all requests: `re` caches compiled expressions.
        self.match = re.compile(f"{head} {rest}{f' {_TIME}' if timed else ''}").fullmatch

    def logs(
        self, rows: Sequence[tuple[str, ...]], limits: RecordLimits, unit_ns: int, now_ns: int
    ) -> list[NewLog] | None:
        """Return the logs for the matched groups, or None if PointParser must parse the lines."""
        columns = list(zip(*rows, strict=True))
        times = list(map(int, columns[-1])) if self.timed else [now_ns] * len(rows)
        if self.timed and unit_ns != 1:
            times = [time * unit_ns for time in times]
        if min(times) < EARLIEST_NS or max(times) > LATEST_NS:
            return None
        values = columns[self._fields_start : self._fields_end]
        texts = [kind.texts(column) for kind, column in zip(self._kinds, values, strict=True)]
        fields = list(map(self._fields_json.__mod__, zip(*texts, strict=True)))
        tags: Sequence[str] | None = None
        longest = max(map(len, fields))
        if self._others:
            tags = list(
                map(self._tags_json.__mod__, zip(*(columns[position] for position in self._others), strict=True))
            )
            longest += max(map(len, tags))
        if not limits.surely_allow(_BYTES_OF_A_CHARACTER * longest):
            return None
        imei, repair = self._own.get("product_imei"), self._own.get("repair_id")
        rows_of_logs = zip(
            repeat(self._app_name, len(rows)),
            repeat(None) if imei is None else columns[imei],
            repeat(None) if repair is None else map(int, columns[repair]),
            map(timestamp_from_ns, times),
            repeat(None) if tags is None else tags,
            fields,
            strict=False,
        )
        return list(map(NewLog._make, rows_of_logs))


def _object(members: Iterable[tuple[str, str]]) -> str:
    """Return the text of a JSON object with a `%` placeholder for each value."""
    names = [(canonical_json(name).decode().replace("%", "%%"), position) for name, position in members]
    return "{" + ",".join(f"{name}:{position}" for name, position in names) + "}"


def derive_form(line: str) -> LineForm | None:
    """Return the form of a line, or None if the line is not plain."""
    if "\\" in line:
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

    def read(self, lines: Sequence[str]) -> list[NewLog | None]:
        """Return the log of each line, or None for a line that PointParser must parse."""
        logs: list[NewLog | None] = [None] * len(lines)
        if len(lines) < FEWEST_LINES or max(map(len, lines)) > self._max_characters:
            return logs
        waiting: Sequence[int] = range(len(lines))
        known = iter(self._forms[:])
        while len(waiting) >= FEWEST_LINES:
            form = next(known, None) or self._derive_form(lines[waiting[len(waiting) // 2]])
            if form is None:
                break
            waiting = self._read_matching(form, lines, waiting, logs)
        return logs

    def _derive_form(self, line: str) -> LineForm | None:
        form = derive_form(line) if len(self._forms) < MAX_FORMS else None
        if form is not None:
            self._forms.append(form)
        return form

    def _read_matching(
        self, form: LineForm, lines: Sequence[str], waiting: Sequence[int], logs: list[NewLog | None]
    ) -> Sequence[int]:
        """Set the logs of the lines of this form. Return the indexes of the other lines."""
        matches = [form.match(lines[position]) for position in waiting]
        rows = [match.groups() for match in matches if match is not None]
        found = form.logs(rows, self._limits, self._unit_ns, self._now_ns) if rows else None
        if found is not None:
            self.used_now = self.used_now or not form.timed
            positions = [position for position, match in zip(waiting, matches, strict=True) if match is not None]
            for position, log in zip(positions, found, strict=True):
                logs[position] = log
        return [position for position, match in zip(waiting, matches, strict=True) if match is None]

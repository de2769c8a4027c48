"""Reading many lines of one shape column by column, at a third of what reading them one by one costs.

Clients write the same tags and the same fields in the same order over and over. Such a shape is learned from one of its
lines and becomes a regular expression; what it matches is looked at a column at a time, mostly in C. Only what is plain
is read here: nothing escaped, numbers without zeros before them, one space between the parts. Nothing is ever refused:
the lines that no shape fits are left to PointReader, which gives the same logs for those that fit too
(tests/influx/test_alike.py).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import NamedTuple

from factory_logs.errors import BadRequestError
from factory_logs.influx.line_protocol import (
    BOOLEANS,
    EARLIEST_NS,
    LATEST_NS,
    FieldValue,
    LineError,
    parse_line,
    parse_series,
)
from factory_logs.influx.mapping import (
    COLUMNS_OF_LOGS,
    IMEI,
    REPAIR_ID,
    check_text,
    origin_of,
    timestamp_of,
)
from factory_logs.ingest.records import Limits, NewLog
from factory_logs.schemas.json_values import canonical_json
from factory_logs.schemas.storable import ROOM

FEWEST_LINES = 16
"""For fewer lines a shape is not looked for."""
MAX_SHAPES = 8
"""So many shapes are learned of one request; each costs a compilation."""
MAX_SHAPE_CHARACTERS = 4000
MAX_SHAPE_PARTS = 40
_BYTES_OF_A_CHARACTER = 4

_PLAIN = r"\x00-\x1f\x7f\ud800-\udfff\\"
"""What JSON would write in another way, or nobody may store; inside a class of characters."""
_TAG = rf'([^,= "{_PLAIN}]+)'
_OWN_COLUMNS = {"product_imei": f"({IMEI.pattern})", "repair_id": f"({REPAIR_ID.pattern})"}
_TIME = "(-?[1-9][0-9]{0,18}|0)"
_JSON_BOOLEANS = {word: "true" if value else "false" for word, value in BOOLEANS.items()}


class _Kind(NamedTuple):
    """How the values of one type are written: in a line, in JSON, and from the one to the other."""

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
    float: _Kind(r"(-?[0-9]{1,20}(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,2})?)", "%s", _float_texts),
    int: _Kind("(-?[1-9][0-9]{0,17}|0)i", "%s", _same),
    bool: _Kind(f"({'|'.join(sorted(BOOLEANS, key=len, reverse=True))})", "%s", _boolean_texts),
    str: _Kind(f'"([^"{_PLAIN}]*)"', '"%s"', _same),
}


class Shape:
    """What lines have in common, and how their logs are made of what they have not."""

    def __init__(self, app_name: str, tags: Sequence[str], fields: Sequence[tuple[str, _Kind]], *, timed: bool) -> None:
        self.timed = timed
        self._app_name = app_name
        self._kinds = [kind for _, kind in fields]
        self._own = {name: place for place, name in enumerate(tags) if name in _OWN_COLUMNS}
        self._others = [place for place, name in enumerate(tags) if name not in _OWN_COLUMNS]
        self._fields_start, self._fields_end = len(tags), len(tags) + len(fields)
        self._tags_json = _object((tags[place], '"%s"') for place in self._others)
        self._fields_json = _object((name, kind.json) for name, kind in fields)
        head = re.escape(app_name) + "".join(f",{re.escape(tag)}={_OWN_COLUMNS.get(tag, _TAG)}" for tag in tags)
        rest = ",".join(f"{re.escape(name)}={kind.pattern}" for name, kind in fields)
        # Compiled once for all requests, as `re` keeps what it has compiled.
        self.match = re.compile(f"{head} {rest}{f' {_TIME}' if timed else ''}").fullmatch

    def logs(self, rows: Sequence[tuple[str, ...]], limits: Limits, unit_ns: int, now_ns: int) -> list[NewLog] | None:
        """The logs of the groups that were matched, or None where they need a closer look."""
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
            tags = list(map(self._tags_json.__mod__, zip(*(columns[place] for place in self._others), strict=True)))
            longest += max(map(len, tags))
        if ROOM + _BYTES_OF_A_CHARACTER * longest > limits.max_record_bytes:
            return None
        imei, repair = self._own.get("product_imei"), self._own.get("repair_id")
        rows_of_logs = zip(
            repeat(self._app_name, len(rows)),
            repeat(None) if imei is None else columns[imei],
            repeat(None) if repair is None else map(int, columns[repair]),
            map(timestamp_of, times),
            repeat(None) if tags is None else tags,
            fields,
            strict=False,
        )
        return list(map(NewLog._make, rows_of_logs))


def _object(members: Iterable[tuple[str, str]]) -> str:
    """A JSON object with a place for each value."""
    names = [(canonical_json(name).decode().replace("%", "%%"), place) for name, place in members]
    return "{" + ",".join(f"{name}:{place}" for name, place in names) + "}"


def learn(line: str) -> Shape | None:
    """The shape of a line, if that is a plain one."""
    if "\\" in line:
        return None
    try:
        check_text(line, MAX_SHAPE_CHARACTERS)
        head, fields, time = parse_line(line)
        series = parse_series(head)
        origin_of(series)
    except (LineError, BadRequestError):
        return None
    if not COLUMNS_OF_LOGS.isdisjoint(fields) or len(fields) + len(series.tags) > MAX_SHAPE_PARTS:
        return None
    kinds = [(name, _KINDS[type(value)]) for name, value in fields.items()]
    shape = Shape(series.measurement, list(series.tags), kinds, timed=time != "")
    return shape if shape.match(line) else None


class AlikeReader:
    """Reads the plain lines of one request, and leaves the others."""

    def __init__(self, limits: Limits, max_characters: int, unit_ns: int, now_ns: int) -> None:
        """A line over `max_characters` may be cut off and is never read here.

        `unit_ns` is the unit of the lines' times; `now_ns` stands for a time that is not there.
        """
        self._limits = limits
        self._max_characters = max_characters
        self._unit_ns = unit_ns
        self._now_ns = now_ns
        self._shapes: list[Shape] = []
        self.used_now = False

    def read(self, lines: Sequence[str]) -> list[NewLog | None]:
        """The log of each line, None where PointReader has to look."""
        logs: list[NewLog | None] = [None] * len(lines)
        if len(lines) < FEWEST_LINES or max(map(len, lines)) > self._max_characters:
            return logs
        waiting: Sequence[int] = range(len(lines))
        known = iter(self._shapes[:])
        while len(waiting) >= FEWEST_LINES:
            shape = next(known, None) or self._learn(lines[waiting[len(waiting) // 2]])
            if shape is None:
                break
            waiting = self._read_alike(shape, lines, waiting, logs)
        return logs

    def _learn(self, line: str) -> Shape | None:
        shape = learn(line) if len(self._shapes) < MAX_SHAPES else None
        if shape is not None:
            self._shapes.append(shape)
        return shape

    def _read_alike(
        self, shape: Shape, lines: Sequence[str], waiting: Sequence[int], logs: list[NewLog | None]
    ) -> Sequence[int]:
        """Fill in the logs of the lines of this shape; the places of the other lines."""
        matches = [shape.match(lines[place]) for place in waiting]
        rows = [match.groups() for match in matches if match is not None]
        found = shape.logs(rows, self._limits, self._unit_ns, self._now_ns) if rows else None
        if found is not None:
            self.used_now = self.used_now or not shape.timed
            places = [place for place, match in zip(waiting, matches, strict=True) if match is not None]
            for place, log in zip(places, found, strict=True):
                logs[place] = log
        return [place for place, match in zip(waiting, matches, strict=True) if match is None]

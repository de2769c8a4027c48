"""Merge the lines of a part into points, and convert the points to logs. If a field has two values, the later line is
used.

A run of lines in InfluxDB's own format (one field per line, no escapes, times without leading zeros) is parsed as one
column of values, with a regular expression over all its lines. All other lines are parsed one by one, with the same
result.
"""

import gc
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.influxdb.dump.partition import LineRun, read_part
from factory_logs.influxdb.line_protocol import (
    EARLIEST_NS,
    LATEST_NS,
    NOT_PLAIN,
    PLAIN_FLOAT,
    PLAIN_INTEGER,
    PLAIN_TIME,
    FieldValue,
    LineError,
    parse_rest,
    parse_series,
    parse_time,
)
from factory_logs.influxdb.mapping import (
    COLUMNS_OF_LOGS,
    LONGEST_TIME,
    Origin,
    check_text,
    point_to_log,
    series_origin,
    timestamp_from_ns,
    unable_to_parse,
)
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.json_values import canonical_json
from factory_logs.schemas.record_limits import RecordLimits

MAX_KNOWN_HEADS, LONGEST_KNOWN_HEAD = 50_000, 1_000
"""The maximum number of cached heads, and the maximum length of each in characters."""

_SeriesIdentity = tuple[str, str, tuple[tuple[str, str], ...]]
"""The identity of a series: database and policy, measurement, sorted tags."""


_TIME = rf"(?:{PLAIN_TIME})(?:\n|\Z)"
_INTEGERS = re.compile(rf"(?:{PLAIN_INTEGER}i {_TIME})++")
_FLOATS = re.compile(rf"(?:{PLAIN_FLOAT}(?:e[+-][0-9]{{2}})? {_TIME})++")
_BOOLEANS = re.compile(rf"(?:(?:true|false) {_TIME})++")
# These strings are valid JSON without conversion.
_STRINGS = re.compile(rf'(?:"[^"{NOT_PLAIN}]*+" {_TIME})++')


class FieldColumn(NamedTuple):
    """The values of one field as JSON text, and their times as text."""

    key: str
    times: list[str]
    texts: Sequence[str]


def read_column(run: LineRun) -> FieldColumn | None:
    """Return the values of a run, or None if its lines must be parsed one by one."""
    if not run.key or not run.key.isprintable():
        return None
    text = run.text
    if _FLOATS.fullmatch(text):
        values, times = _values_and_times(text)
        return FieldColumn(run.key, times, canonical_json(list(map(float, values))).decode()[1:-1].split(","))
    if _BOOLEANS.fullmatch(text):
        values, times = _values_and_times(text)
        return FieldColumn(run.key, times, values)
    if _INTEGERS.fullmatch(text):
        values, times = _values_and_times(text)
        return FieldColumn(run.key, times, [value[:-1] for value in values])
    if _STRINGS.fullmatch(text):
        pairs = [rest.rpartition(" ") for rest in run.rests]
        return FieldColumn(run.key, [time for _, _, time in pairs], [value for value, _, _ in pairs])
    return None


def _values_and_times(text: str) -> tuple[list[str], list[str]]:
    words = text.split()
    return words[::2], words[1::2]


def join_columns(columns: Sequence[FieldColumn]) -> dict[str, str] | None:
    """Return the members of a JSON object for each time, or None if a field has two values at one time."""
    times = columns[0].times
    alike = len({column.key for column in columns}) == len(columns) and all(each.times == times for each in columns)
    if not alike or len(set(times)) < len(times):
        return _joined_one_by_one(columns)
    points = [""] * len(times)
    for key, _, texts in columns:
        name = canonical_json(key).decode()
        points = [f"{fields},{name}:{text}" for fields, text in zip(points, texts, strict=True)]
    return {time: fields[1:] for time, fields in zip(times, points, strict=True)}


def _joined_one_by_one(columns: Iterable[FieldColumn]) -> dict[str, str] | None:
    """Return the result of `join_columns` for columns with different times."""
    points: dict[str, str] = {}
    seen: dict[str, set[str]] = {}
    for key, times, texts in columns:
        new, old = set(times), seen.setdefault(key, set())
        if len(new) < len(times) or not new.isdisjoint(old):
            return None
        old |= new
        name = canonical_json(key).decode()
        for time, text in zip(times, texts, strict=True):
            fields = points.get(time)
            points[time] = f"{name}:{text}" if fields is None else f"{fields},{name}:{text}"
    return points


class RejectedDumpLine(NamedTuple):
    """A line of the dump that is not stored, and its error."""

    number: int
    context: str
    line: str
    errors: Sequence[FieldError]


@dataclass(slots=True)
class MergedPart:
    """The logs of a part by series, and the errors of rejected lines."""

    series: dict[_SeriesIdentity, list[NewLog]] = field(default_factory=dict)
    bad_lines: dict[int, BadRequestError] = field(default_factory=dict)
    bad_series: dict[_SeriesIdentity, BadRequestError] = field(default_factory=dict)
    bad_points: dict[tuple[_SeriesIdentity, int], BadRequestError] = field(default_factory=dict)

    @property
    def logs(self) -> list[NewLog]:
        return [log for logs in self.series.values() for log in logs]

    def take_columns(self) -> NewLogs:
        """Return the logs column by column, and forget them series by series, so that they are in memory once."""
        columns = NewLogs()
        for logs in self.series.values():
            columns.extend(NewLogs.of(logs))
            logs.clear()
        return columns

    def without_repairs(self, unknown: set[int]) -> None:
        """Reject the series whose repair does not exist in the database."""
        if not unknown:
            return
        for key, logs in list(self.series.items()):
            if logs and logs[0].repair_id in unknown:
                unknown_repair = FieldError("repair_id", f"there is no repair {logs[0].repair_id}")
                self.bad_series[key] = BadRequestError("Validation failed", [unknown_repair])
                del self.series[key]


class PartMerger:
    """Merges parts of one dump independently of each other."""

    def __init__(self, limits: RecordLimits, unit_ns: int, max_characters: int) -> None:
        self._limits = limits
        self._unit_ns = unit_ns
        self._max_characters = max_characters

    def merge(self, path: Path) -> MergedPart:
        part = MergedPart()
        by_series: dict[_SeriesIdentity, list[LineRun]] = {}
        for run in read_part(path):
            try:
                check_text(run.head, self._max_characters)
                by_series.setdefault(_series_key(run.context, run.head), []).append(run)
            except LineError as error:
                part.bad_lines |= dict.fromkeys(
                    range(run.number, run.number + run.length), unable_to_parse(run.head, error)
                )
            except BadRequestError as error:
                part.bad_lines |= dict.fromkeys(range(run.number, run.number + run.length), error)
        for key, runs in by_series.items():
            _, _, origin = _head(runs[0].head)
            if isinstance(origin, BadRequestError):
                part.bad_series[key] = origin
                continue
            logs = self._logs_by_column(origin, runs)
            part.series[key] = self._logs_by_line(key, origin, runs, part) if logs is None else logs
        return part

    def _logs_by_column(self, origin: Origin, runs: Sequence[LineRun]) -> list[NewLog] | None:
        """Return the logs, or None if some lines must be parsed one by one."""
        columns: list[FieldColumn] = []
        for run in runs:
            column = read_column(run)
            if column is None or column.key in COLUMNS_OF_LOGS:
                return None
            columns.append(column)
        points = join_columns(columns)
        if points is None:
            return None
        times = [int(time) * self._unit_ns for time in points]
        if not self._fits(origin, times, points.values()):
            return None
        app_name, imei, repair_id, tags, _ = origin
        return [
            NewLog(app_name, imei, repair_id, timestamp_from_ns(time), tags, f"{{{fields}}}")
            for time, fields in zip(times, points.values(), strict=True)
        ]

    def _fits(self, origin: Origin, times: Collection[int], fields: Iterable[str]) -> bool:
        """Return whether every point certainly has a storable time and size. A character takes up to four bytes."""
        longest = origin.size + LONGEST_TIME + 4 * (max(map(len, fields)) + len("{}"))
        return min(times) >= EARLIEST_NS and max(times) <= LATEST_NS and longest <= self._limits.max_record_bytes

    def _logs_by_line(
        self, key: _SeriesIdentity, origin: Origin, runs: Sequence[LineRun], part: MergedPart
    ) -> list[NewLog]:
        points: dict[int, dict[str, FieldValue]] = {}
        for run in runs:
            for number, rest in run.after_head():
                try:
                    time, fields = self._read(run.head, rest)
                except BadRequestError as error:
                    part.bad_lines[number] = error
                    continue
                point = points.get(time)
                if point is None:
                    points[time] = fields
                else:
                    point.update(fields)
        logs: list[NewLog] = []
        for time, fields in points.items():
            try:
                logs.append(point_to_log(origin, fields, time, self._limits))
            except BadRequestError as error:
                part.bad_points[key, time] = error
        return logs

    def _read(self, head: str, rest: str) -> tuple[int, dict[str, FieldValue]]:
        check_text(rest, self._max_characters)
        try:
            if not rest:
                raise LineError("missing fields")
            fields, time = parse_rest(rest)
            if not time:
                raise LineError("missing timestamp: the time of the point is unknown")
            return parse_time(time, self._unit_ns), fields
        except LineError as error:
            raise unable_to_parse(f"{head} {rest}", error) from None

    def rejected_lines(self, path: Path, part: MergedPart) -> Iterator[RejectedDumpLine]:
        """Yield the rejected lines. Reads the part a second time."""
        if not (part.bad_lines or part.bad_series or part.bad_points):
            return
        for run in read_part(path):
            for number, line in run.lines():
                error = part.bad_lines.get(number) or self._error_beyond_the_line(run, line, part)
                if error is not None:
                    errors = error.errors or (FieldError("", error.message),)
                    yield RejectedDumpLine(number, run.context, line, errors)

    def _error_beyond_the_line(self, run: LineRun, line: str, part: MergedPart) -> BadRequestError | None:
        key = _series_key(run.context, run.head)
        if key in part.bad_series or not part.bad_points:
            return part.bad_series.get(key)
        time, _ = self._read(run.head, line[len(run.head) + 1 :])
        return part.bad_points.get((key, time))


def _head(head: str) -> tuple[str, tuple[tuple[str, str], ...], Origin | BadRequestError]:
    """Return measurement, sorted tags and the columns that the logs of a series share. Raises LineError.

    The result is cached, because most series are in many parts.
    """
    return _cached_head(head) if len(head) <= LONGEST_KNOWN_HEAD else _read_head(head)


def _read_head(head: str) -> tuple[str, tuple[tuple[str, str], ...], Origin | BadRequestError]:
    series = parse_series(head)
    tags = tuple(sorted(series.tags.items()))
    try:
        return series.measurement, tags, series_origin(series)
    except BadRequestError as error:
        return series.measurement, tags, error


_cached_head = lru_cache(maxsize=MAX_KNOWN_HEADS)(_read_head)


def _series_key(context: str, head: str) -> _SeriesIdentity:
    measurement, tags, _ = _head(head)
    return context, measurement, tags


@contextmanager
def no_cycles() -> Iterator[None]:
    """Turn off the garbage collector, which would search all lines for cycles repeatedly and find none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""A part of a dump to logs: each point from all its lines, as InfluxDB keeps it; of two values of a field the last."""

import gc
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.influx.columns import Column, joined, read_column
from factory_logs.influx.line_protocol import (
    EARLIEST_NS,
    LATEST_NS,
    FieldValue,
    LineError,
    parse_rest,
    parse_series,
    parse_time,
)
from factory_logs.influx.mapping import (
    COLUMNS_OF_LOGS,
    LONGEST_TIME,
    Origin,
    check_text,
    log_of,
    origin_of,
    timestamp_of,
    unable_to_parse,
)
from factory_logs.influx.runs import Run
from factory_logs.influx.spill import spilled_runs
from factory_logs.ingest.records import Limits, NewLog

MAX_KNOWN_HEADS, LONGEST_KNOWN_HEAD = 50_000, 1_000
"""Of so many heads, of so many characters each, is remembered what they mean."""

_Place = tuple[str, str, tuple[tuple[str, str], ...]]
"""Database and policy, measurement, sorted tags: what makes a series."""


class RejectedLine(NamedTuple):
    """A line that is not stored, as it stands in the dump, and why."""

    number: int
    context: str
    line: str
    faults: Sequence[FieldError]


@dataclass(slots=True)
class MergedPart:
    """The logs of a part by series, and what is wrong with the lines that are in none."""

    series: dict[_Place, list[NewLog]] = field(default_factory=dict)
    bad_lines: dict[int, BadRequestError] = field(default_factory=dict)
    bad_series: dict[_Place, BadRequestError] = field(default_factory=dict)
    bad_points: dict[tuple[_Place, int], BadRequestError] = field(default_factory=dict)

    @property
    def logs(self) -> list[NewLog]:
        return [log for logs in self.series.values() for log in logs]

    def without_repairs(self, unknown: set[int]) -> None:
        """Refuse the series of repairs that are not there."""
        if not unknown:
            return
        for place, logs in list(self.series.items()):
            if logs and logs[0].repair_id in unknown:
                fault = FieldError("repair_id", f"there is no repair {logs[0].repair_id}")
                self.bad_series[place] = BadRequestError("Validation failed", [fault])
                del self.series[place]


class PartMerger:
    """Merges parts of one dump, each on its own."""

    def __init__(self, limits: Limits, unit_ns: int, max_characters: int) -> None:
        self._limits = limits
        self._unit_ns = unit_ns
        self._max_characters = max_characters

    def merge(self, path: Path) -> MergedPart:
        part = MergedPart()
        by_place: dict[_Place, list[Run]] = {}
        for run in spilled_runs(path):
            try:
                check_text(run.head, self._max_characters)
                by_place.setdefault(_place_of(run.context, run.head), []).append(run)
            except LineError as error:
                part.bad_lines |= dict.fromkeys(
                    range(run.number, run.number + run.length), unable_to_parse(run.head, error)
                )
            except BadRequestError as error:
                part.bad_lines |= dict.fromkeys(range(run.number, run.number + run.length), error)
        for place, runs in by_place.items():
            _, _, origin = _known(runs[0].head)
            if isinstance(origin, BadRequestError):
                part.bad_series[place] = origin
                continue
            logs = self._logs_by_column(origin, runs)
            part.series[place] = self._logs_by_line(place, origin, runs, part) if logs is None else logs
        return part

    def _logs_by_column(self, origin: Origin, runs: Sequence[Run]) -> list[NewLog] | None:
        """None where some line needs a closer look."""
        columns: list[Column] = []
        for run in runs:
            column = read_column(run)
            if column is None or column.key in COLUMNS_OF_LOGS:
                return None
            columns.append(column)
        points = joined(columns)
        if points is None:
            return None
        times = [int(time) * self._unit_ns for time in points]
        if not self._fits(origin, times, points.values()):
            return None
        app_name, imei, repair_id, tags, _ = origin
        return [
            NewLog(app_name, imei, repair_id, timestamp_of(time), tags, f"{{{fields}}}")
            for time, fields in zip(times, points.values(), strict=True)
        ]

    def _fits(self, origin: Origin, times: Collection[int], fields: Iterable[str]) -> bool:
        """Whether all points surely have a time and a size that can be stored; a character takes up to four bytes."""
        longest = origin.size + LONGEST_TIME + 4 * (max(map(len, fields)) + len("{}"))
        return min(times) >= EARLIEST_NS and max(times) <= LATEST_NS and longest <= self._limits.max_record_bytes

    def _logs_by_line(self, place: _Place, origin: Origin, runs: Sequence[Run], part: MergedPart) -> list[NewLog]:
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
                logs.append(log_of(origin, fields, time, self._limits))
            except BadRequestError as error:
                part.bad_points[place, time] = error
        return logs

    def _read(self, head: str, rest: str) -> tuple[int, dict[str, FieldValue]]:
        check_text(rest, self._max_characters)
        try:
            if not rest:
                raise LineError("missing fields")
            fields, time = parse_rest(rest)
            if not time:
                raise LineError("missing timestamp: when it happened is not known")
            return parse_time(time, self._unit_ns), fields
        except LineError as error:
            raise unable_to_parse(f"{head} {rest}", error) from None

    def rejected_lines(self, path: Path, part: MergedPart) -> Iterator[RejectedLine]:
        """The lines of the dump behind what is bad in a part; the part is read once more for them."""
        if not (part.bad_lines or part.bad_series or part.bad_points):
            return
        for run in spilled_runs(path):
            for number, line in run.lines():
                error = part.bad_lines.get(number) or self._error_beyond_the_line(run, line, part)
                if error is not None:
                    faults = error.errors or (FieldError("", error.message),)
                    yield RejectedLine(number, run.context, line, faults)

    def _error_beyond_the_line(self, run: Run, line: str, part: MergedPart) -> BadRequestError | None:
        place = _place_of(run.context, run.head)
        if place in part.bad_series or not part.bad_points:
            return part.bad_series.get(place)
        time, _ = self._read(run.head, line[len(run.head) + 1 :])
        return part.bad_points.get((place, time))


def _known(head: str) -> tuple[str, tuple[tuple[str, str], ...], Origin | BadRequestError]:
    """Measurement, sorted tags and what the logs of a series share; most series are in many parts. Raises LineError."""
    return _kept(head) if len(head) <= LONGEST_KNOWN_HEAD else _looked_at(head)


def _looked_at(head: str) -> tuple[str, tuple[tuple[str, str], ...], Origin | BadRequestError]:
    series = parse_series(head)
    tags = tuple(sorted(series.tags.items()))
    try:
        return series.measurement, tags, origin_of(series)
    except BadRequestError as error:
        return series.measurement, tags, error


_kept = lru_cache(maxsize=MAX_KNOWN_HEADS)(_looked_at)


def _place_of(context: str, head: str) -> _Place:
    measurement, tags, _ = _known(head)
    return context, measurement, tags


@contextmanager
def no_cycles() -> Iterator[None]:
    """Without the collector of cycles, which looks through all lines again and again and finds none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""A part of a dump to logs: each point from all its lines, as InfluxDB keeps it; of two values of a field the last."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.influx.line_protocol import FieldValue, LineError, parse_rest, parse_series, parse_time
from factory_logs.influx.mapping import Origin, check_text, log_of, origin_of, unable_to_parse
from factory_logs.influx.spill import SpilledLine, spilled_lines
from factory_logs.ingest.records import Limits, NewLog

MAX_KNOWN_HEADS = 50_000

_Place = tuple[str, str, tuple[tuple[str, str], ...]]
"""Database and policy, measurement, sorted tags: what makes a series."""


@dataclass(slots=True)
class _Series:
    place: _Place
    origin: Origin | BadRequestError
    points: dict[int, dict[str, FieldValue]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RejectedLine:
    """A line that is not stored, as it stands in the dump, and why."""

    number: int
    context: str
    line: str
    faults: Sequence[FieldError]


@dataclass(slots=True)
class MergedPart:
    """The logs of a part, and what makes up each, to tell a refused one's lines."""

    logs: list[NewLog] = field(default_factory=list)
    keys: list[tuple[_Place, int]] = field(default_factory=list)
    bad_lines: dict[int, BadRequestError] = field(default_factory=dict)
    bad_points: dict[tuple[_Place, int], BadRequestError] = field(default_factory=dict)
    lines: int = 0

    def without_repairs(self, unknown: set[int]) -> None:
        """Refuse the logs of repairs that are not there."""
        if not unknown:
            return
        logs, keys = self.logs, self.keys
        self.logs, self.keys = [], []
        for log, key in zip(logs, keys, strict=True):
            if log.repair_id in unknown:
                fault = FieldError("repair_id", f"there is no repair {log.repair_id}")
                self.bad_points[key] = BadRequestError("Validation failed", [fault])
            else:
                self.logs.append(log)
                self.keys.append(key)


class PartMerger:
    """Merges parts of one dump, each on its own."""

    def __init__(self, limits: Limits, unit_ns: int, max_characters: int) -> None:
        self._limits = limits
        self._unit_ns = unit_ns
        self._max_characters = max_characters

    def merge(self, path: Path) -> MergedPart:
        part = MergedPart()
        by_place: dict[_Place, _Series] = {}
        by_head: dict[tuple[str, str], _Series] = {}
        times: dict[str, int] = {}
        last_context, last_head, points = "", "", dict[int, dict[str, FieldValue]]()
        for number, context, head, rest in spilled_lines(path):
            part.lines += 1
            try:
                if head is not last_head or context is not last_context:
                    points = self._series(context, head, by_head, by_place).points
                    last_context, last_head = context, head
                time, fields = self._read(head, rest, times)
            except BadRequestError as error:
                last_head = ""
                part.bad_lines[number] = error
                continue
            point = points.get(time)
            if point is None:
                points[time] = fields
            else:
                point.update(fields)
        self._make_logs(by_place, part)
        return part

    def _series(
        self, context: str, head: str, by_head: dict[tuple[str, str], _Series], by_place: dict[_Place, _Series]
    ) -> _Series:
        series = by_head.get((context, head))
        if series is None:
            check_text(head, self._max_characters)
            series = by_head[context, head] = _series_of(context, head, by_place)
        return series

    def _read(self, head: str, rest: str, times: dict[str, int]) -> tuple[int, dict[str, FieldValue]]:
        """`times` are those that were read already: each stands in a line of each field."""
        if not rest.isascii() or len(rest) > self._max_characters or "\0" in rest:
            check_text(rest, self._max_characters)
        try:
            if not rest:
                raise LineError("missing fields")
            fields, time = parse_rest(rest)
            known = times.get(time)
            if known is not None:
                return known, fields
            if not time:
                raise LineError("missing timestamp: when it happened is not known")
            found = times[time] = parse_time(time, self._unit_ns)
            return found, fields
        except LineError as error:
            raise unable_to_parse(f"{head} {rest}", error) from None

    def _make_logs(self, by_place: dict[_Place, _Series], part: MergedPart) -> None:
        for series in by_place.values():
            for time, fields in series.points.items():
                key = series.place, time
                try:
                    if isinstance(series.origin, BadRequestError):
                        raise series.origin
                    log = log_of(series.origin, fields, time, self._limits)
                except BadRequestError as error:
                    part.bad_points[key] = error
                    continue
                part.logs.append(log)
                part.keys.append(key)

    def rejected_lines(self, path: Path, part: MergedPart) -> Iterator[RejectedLine]:
        """The lines of the dump behind what is bad in a part; the part is read once more for them."""
        if not part.bad_lines and not part.bad_points:
            return
        for line in spilled_lines(path):
            number, context, head, rest = line
            error = part.bad_lines.get(number) or self._point_error(line, part)
            if error is not None:
                faults = error.errors or (FieldError("", error.message),)
                yield RejectedLine(number, context, f"{head} {rest}".strip(), faults)

    def _point_error(self, line: SpilledLine, part: MergedPart) -> BadRequestError | None:
        if not part.bad_points:
            return None
        _, context, head, rest = line
        time, _ = self._read(head, rest, {})
        return part.bad_points.get((_place_of(context, head), time))


@lru_cache(maxsize=MAX_KNOWN_HEADS)
def _known(head: str) -> tuple[str, tuple[tuple[str, str], ...], Origin | BadRequestError]:
    """Measurement, sorted tags and what the logs of a series share; most series are in many parts. Raises LineError."""
    series = parse_series(head)
    tags = tuple(sorted(series.tags.items()))
    try:
        return series.measurement, tags, origin_of(series)
    except BadRequestError as error:
        return series.measurement, tags, error


def _place_of(context: str, head: str) -> _Place:
    measurement, tags, _ = _known(head)
    return context, measurement, tags


def _series_of(context: str, head: str, by_place: dict[_Place, _Series]) -> _Series:
    """Raises BadRequestError where the head cannot be read at all."""
    try:
        measurement, tags, origin = _known(head)
    except LineError as error:
        raise unable_to_parse(head, error) from None
    place = context, measurement, tags
    series = by_place.get(place)
    if series is None:
        series = by_place[place] = _Series(place, origin)
    return series


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

"""Runs of an export's lines read as columns: what is alike in all lines is looked at once, in C and not line by line.

Only what is written as InfluxDB itself writes it is read here: one field a line, nothing escaped, times without zeros
before them. For all else there is None, and whoever asked reads line by line. Both ways give the same logs.
"""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from factory_logs.influx.runs import Run
from factory_logs.schemas.json_values import canonical_json

_TIME = r"(?:-?[1-9][0-9]{0,18}|0)(?:\n|\Z)"
_INTEGERS = re.compile(rf"(?:(?:-?[1-9][0-9]{{0,17}}|0)i {_TIME})++")
_FLOATS = re.compile(rf"(?:-?[0-9]{{1,20}}(?:\.[0-9]{{1,30}})?(?:e[+-][0-9]{{2}})? {_TIME})++")
_BOOLEANS = re.compile(rf"(?:(?:true|false) {_TIME})++")
# These strings are JSON as they stand.
_STRINGS = re.compile(rf'(?:"[^"\\\x00-\x1f\x7f\ud800-\udfff]*+" {_TIME})++')


class Column(NamedTuple):
    """The values of one field as JSON texts, and their times as they are written."""

    key: str
    times: list[str]
    texts: Sequence[str]


def read_column(run: Run) -> Column | None:
    """The lines of a run, or None where they need a closer look."""
    if not run.key or not run.key.isprintable():
        return None
    text = run.text
    if _FLOATS.fullmatch(text):
        values, times = _values_and_times(text)
        return Column(run.key, times, canonical_json(list(map(float, values))).decode()[1:-1].split(","))
    if _BOOLEANS.fullmatch(text):
        values, times = _values_and_times(text)
        return Column(run.key, times, values)
    if _INTEGERS.fullmatch(text):
        values, times = _values_and_times(text)
        return Column(run.key, times, [value[:-1] for value in values])
    if _STRINGS.fullmatch(text):
        pairs = [rest.rpartition(" ") for rest in run.rests]
        return Column(run.key, [time for _, _, time in pairs], [value for value, _, _ in pairs])
    return None


def _values_and_times(text: str) -> tuple[list[str], list[str]]:
    words = text.split()
    return words[::2], words[1::2]


def joined(columns: Sequence[Column]) -> dict[str, str] | None:
    """The fields of each time as the inside of a JSON object; None where a field has two values at one time."""
    times = columns[0].times
    alike = len({column.key for column in columns}) == len(columns) and all(each.times == times for each in columns)
    if not alike or len(set(times)) < len(times):
        return _joined_one_by_one(columns)
    points = [""] * len(times)
    for key, _, texts in columns:
        name = canonical_json(key).decode()
        points = [f"{fields},{name}:{text}" for fields, text in zip(points, texts, strict=True)]
    return {time: fields[1:] for time, fields in zip(times, points, strict=True)}


def _joined_one_by_one(columns: Iterable[Column]) -> dict[str, str] | None:
    """The same where not each field is there at each time."""
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

"""Responses of `/query` as values that compare as their JSON reads: order of members and text of numbers count."""

import json
import math
import re
from collections.abc import Iterator

SUMMED = re.compile(
    r"\b(mean|sum|stddev|integral|moving_average|cumulative_sum|sin|cos|tan|atan|atan2|exp|ln|log|log2|log10|pow)\(",
    re.IGNORECASE,
)
"""The functions whose last digits may differ: a sum depends on its order, a logarithm on the library."""


class Number(str):
    """A number with its original digits."""


def documents(text: str) -> list[object]:
    """Return the JSON documents of a body; a chunked one has several."""
    decoder = json.JSONDecoder(parse_float=Number, parse_int=Number, object_pairs_hook=_members)
    found, position = [], 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        document, position = decoder.raw_decode(text, position)
        found.append(document)
    return found


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    return dict(pairs)


def in_order(value: object) -> object:
    """Return a response with the series of each result sorted by name and tags."""
    if isinstance(value, list):
        return [in_order(each) for each in value]
    if isinstance(value, dict):
        ordered = {name: in_order(each) for name, each in value.items()}
        if isinstance(series := ordered.get("series"), list):
            series.sort(key=lambda each: (each.get("name", ""), json.dumps(each.get("tags"))))
        return ordered
    return value


def differences(theirs: object, ours: object, *, summed: bool, path: str = "") -> Iterator[str]:
    """Name the path of each difference; `summed` allows for the last digits of a sum."""
    if isinstance(theirs, Number) and isinstance(ours, Number):
        if theirs != ours and not (summed and math.isclose(float(theirs), float(ours), rel_tol=1e-9, abs_tol=1e-12)):
            yield f"{path}: {theirs} in InfluxDB, {ours} here"
    elif isinstance(theirs, dict) and isinstance(ours, dict):
        if list(theirs) != list(ours):
            yield f"{path}: members {list(theirs)} in InfluxDB, {list(ours)} here: {_short(theirs)}; {_short(ours)}"
            return
        for name, value in theirs.items():
            yield from differences(value, ours[name], summed=summed, path=f"{path}.{name}")
    elif isinstance(theirs, list) and isinstance(ours, list):
        if len(theirs) != len(ours):
            yield f"{path}: {len(theirs)} items in InfluxDB, {len(ours)} here: {_short(theirs)}; {_short(ours)}"
            return
        for number, (value, own) in enumerate(zip(theirs, ours, strict=True)):
            yield from differences(value, own, summed=summed, path=f"{path}[{number}]")
    elif type(theirs) is not type(ours) or theirs != ours:
        yield f"{path}: {_short(theirs)} in InfluxDB, {_short(ours)} here"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else text[:300] + "..."

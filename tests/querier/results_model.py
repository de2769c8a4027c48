"""A model of the test results in plain Python, with which PostgreSQL's results are compared."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

Log = dict[str, Any]
Key = Callable[[Log], tuple[str, ...]]
ORIGIN = datetime(1, 1, 1)
COUNTS = ("attempts", "passed", "units", "first_passed", "last_passed", "retested")


def at(log: Log, name: str) -> Any:
    """Return the value at a field or JSON path, or None if there is none."""
    if name in log:
        return log[name]
    value: Any = log
    for part in name.split("__"):
        if isinstance(value, list) and part.isdecimal():
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


def bucket_begin(moment: datetime, length: timedelta, zone: str = "UTC") -> datetime:
    """Return the beginning of the bucket of a time, both in UTC."""
    local = moment.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    start = ORIGIN + (local - ORIGIN) // length * length
    return start.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).replace(tzinfo=None)


def key_text(value: Any) -> str:
    """Return a value of a key as JSON, with numbers as PostgreSQL writes them: 1e300 is an integer."""
    return json.dumps(_exact(str(value) if isinstance(value, datetime) else value), sort_keys=True)


def _exact(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(Decimal(repr(value)))
    if isinstance(value, list):
        return [_exact(each) for each in value]
    return {name: _exact(each) for name, each in value.items()} if isinstance(value, dict) else value


def key_of(length: timedelta | None, by: Sequence[str], zone: str = "UTC") -> Key:
    """Return the key of a log's group, as JSON texts."""

    def key(log: Log) -> tuple[str, ...]:
        bucket = [] if length is None else [str(bucket_begin(log["timestamp"], length, zone))]
        return tuple(key_text(value) for value in [*bucket, *(at(log, name) for name in by)])

    return key


def in_time(logs: Sequence[Log]) -> list[Log]:
    return sorted(logs, key=lambda log: (log["timestamp"], log["factory_log_id"]))


def yields(
    logs: Sequence[Log], key: Key, unit: str = "product_imei", passed: str = "fields__passed"
) -> tuple[dict[tuple[str, ...], dict[str, Any]], dict[str, Any]]:
    """Return the counts and yields of each group and in total."""
    attempts = [log for log in in_time(logs) if isinstance(at(log, passed), bool)]
    pairs: defaultdict[tuple[str, str], list[Log]] = defaultdict(list)
    groups: defaultdict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
    apps: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for log in attempts:
        groups[key(log)].update(attempts=1, passed=int(at(log, passed)))
        if at(log, unit) is not None:
            pairs[log["app_name"], json.dumps(at(log, unit))].append(log)
    for (app, _), of_pair in pairs.items():
        first, last = of_pair[0], of_pair[-1]
        counts = {
            "units": 1,
            "first_passed": int(at(first, passed)),
            "last_passed": int(at(last, passed)),
            "retested": int(len(of_pair) > 1),
        }
        groups[key(first)].update(counts)
        apps[app].update(counts)
    total = sum(groups.values(), Counter())
    rolled = [counts["first_passed"] / counts["units"] for counts in apps.values()]
    in_all = with_yields(total) | {"rolled_throughput_yield": product(rolled)}
    return {name: with_yields(counts) for name, counts in groups.items()}, in_all


def product(factors: list[float]) -> float | None:
    return math.prod(factors) if factors else None


def with_yields(counts: Counter[str]) -> dict[str, Any]:
    def ratio(part: str, whole: str) -> float | None:
        return counts[part] / counts[whole] if counts[whole] else None

    return {name: counts[name] for name in COUNTS} | {
        "attempt_yield": ratio("passed", "attempts"),
        "first_pass_yield": ratio("first_passed", "units"),
        "final_yield": ratio("last_passed", "units"),
    }


def failed_measurements(log: Log, passed: str) -> set[str | None]:
    """Return the failed measurements of one failed attempt."""

    def failed_paths(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, child in children:
            here = (*path, str(name))
            if child is False and "__".join(here) != passed:
                is_of_object = name in ("pass", "passed") and len(path) > 1
                yield path if is_of_object else here
            yield from failed_paths(child, here)

    return {"__".join(path) for path in failed_paths(log["fields"], ("fields",))} or {None}


def failures(
    logs: Sequence[Log], unit: str = "product_imei", passed: str = "fields__passed"
) -> tuple[int, dict[Any, Any]]:
    """Return how many attempts failed, and for each measurement how many of them and how many pairs."""
    failed = [log for log in logs if at(log, passed) is False]
    attempts: Counter[Any] = Counter()
    pairs: defaultdict[Any, set[Any]] = defaultdict(set)
    for log in failed:
        for measurement in failed_measurements(log, passed):
            attempts[measurement] += 1
            if at(log, unit) is not None:
                pairs[measurement].add((log["app_name"], json.dumps(at(log, unit))))
    return len(failed), {name: (number, len(pairs[name])) for name, number in attempts.items()}


def numbers_of(logs: Sequence[Log], field: str, *, with_booleans: bool = False) -> list[Any]:
    found = [at(log, field) for log in in_time(logs)]
    return [n for n in found if isinstance(n, int | float) and (with_booleans or not isinstance(n, bool))]


def nearest_rank(ordered: Sequence[Any], percent: int) -> Any:
    return ordered[max(0, math.ceil(Fraction(percent * len(ordered), 100)) - 1)]


def distribution(
    logs: Sequence[Log], key: Key, field: str, bins: int, lower: float | None, upper: float | None
) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the statistics of each group that has numbers."""
    groups: defaultdict[tuple[str, ...], list[Log]] = defaultdict(list)
    for log in logs:
        groups[key(log)].append(log)
    numbers = {name: numbers_of(of_group, field) for name, of_group in groups.items()}
    numbers = {name: of_group for name, of_group in numbers.items() if of_group}
    every = [number for of_group in numbers.values() for number in of_group]
    return {name: measures(of_group, every, bins, lower, upper) for name, of_group in numbers.items()}


def measures(
    numbers: Sequence[Any], every: Sequence[Any], bins: int, lower: float | None, upper: float | None
) -> dict[str, Any]:
    ordered = sorted(numbers)
    exact = [Fraction(str(number)) for number in numbers]
    mean = sum(exact) / len(exact)
    variance = sum((number - mean) ** 2 for number in exact) / (len(exact) - 1) if len(exact) > 1 else None
    deviation = None if variance is None else square_root(variance)
    ranges = [abs(after - before) for before, after in pairwise(exact)]
    short_term = sum(ranges) / len(ranges) / Fraction("1.128") if ranges else None
    found: dict[str, Any] = {"count": len(numbers), "mean": float(mean)}
    found["stddev"] = None if deviation is None else float(deviation)
    found |= {"min": ordered[0], "max": ordered[-1]}
    found |= {f"p{percent}": nearest_rank(ordered, percent) for percent in (1, 5, 25, 50, 75, 95, 99)}
    found["histogram"] = histogram(numbers, every, bins)
    found["below"] = None if lower is None else sum(number < lower for number in numbers)
    found["above"] = None if upper is None else sum(number > upper for number in numbers)
    found["cp"], found["cpk"] = capability(mean, short_term, lower, upper)
    found["pp"], found["ppk"] = capability(mean, deviation, lower, upper)
    return found


def square_root(number: Fraction) -> Fraction:
    """Return the root with many more digits than a double has. The number may be too large for a double."""
    with localcontext(prec=60):
        return Fraction((Decimal(number.numerator) / Decimal(number.denominator)).sqrt())


def capability(
    mean: Fraction, deviation: Fraction | None, lower: float | None, upper: float | None
) -> tuple[float | None, float | None]:
    if not deviation:
        return None, None
    least, greatest = (None if limit is None else Fraction(str(limit)) for limit in (lower, upper))
    potential = None if least is None or greatest is None else float((greatest - least) / (6 * deviation))
    sides = ([] if least is None else [mean - least]) + ([] if greatest is None else [greatest - mean])
    return potential, float(min(sides) / (3 * deviation)) if sides else None


def histogram(numbers: Sequence[Any], every: Sequence[Any], bins: int) -> list[dict[str, Any]]:
    """The last bin is closed; a number at an edge between two belongs to the upper one."""
    least, greatest = min(every), max(every)
    if least == greatest:
        return [{"from": least, "to": greatest, "count": len(numbers)}]
    low, high = Fraction(str(least)), Fraction(str(greatest))
    edges = [least, *(float(low + (high - low) * n / bins) for n in range(1, bins)), greatest]
    return [
        {
            "from": begin,
            "to": end,
            "count": sum(begin <= number and (number < end or index == bins - 1) for number in numbers),
        }
        for index, (begin, end) in enumerate(pairwise(edges))
    ]


def facet(logs: Sequence[Log], field: str, limit: int) -> dict[str, Any]:
    """Return the values of one field, each as JSON text with its number of logs."""
    texts = [key_text(at(log, field)) for log in logs]
    counted = Counter(text for text in texts if text != "null")
    ranked = sorted(counted.items(), key=lambda item: (-item[1], rank(json.loads(item[0]))))[:limit]
    missing = texts.count("null")
    return {"values": ranked, "other": len(texts) - missing - sum(n for _, n in ranked), "missing": missing}


def rank(value: Any) -> tuple[int, Any]:
    """Return a sort key: strings by code points, numbers, booleans, other JSON by its text."""
    if isinstance(value, str):
        return 0, value
    if isinstance(value, bool):
        return 2, value
    return (1, Fraction(str(value))) if isinstance(value, int | float) else (3, json.dumps(value))


JSON_TYPES = {str: "string", bool: "boolean", int: "number", float: "number", list: "array", type(None): "null"}


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Return the paths of scalars and arrays with their types."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield from leaves(child, f"{path}__{name}")
    else:
        yield path, JSON_TYPES[type(value)]


def catalog(logs: Sequence[Log]) -> list[dict[str, Any]]:
    """Return the paths of each app."""
    apps: defaultdict[str, list[Log]] = defaultdict(list)
    for log in logs:
        apps[log["app_name"]].append(log)
    return [
        {
            "app_name": app,
            "logs": len(of_app),
            "first": min(log["timestamp"] for log in of_app),
            "last": max(log["timestamp"] for log in of_app),
            **{column: paths_of(of_app, column) for column in ("tags", "fields")},
        }
        for app, of_app in sorted(apps.items())
    ]


def paths_of(logs: Sequence[Log], column: str) -> list[dict[str, Any]]:
    types: defaultdict[str, set[str]] = defaultdict(set)
    for log in logs:
        if log[column] is not None:
            for path, json_type in leaves(log[column], column):
                types[path].add(json_type)
    return [{"path": path, "types": sorted(found)} for path, found in sorted(types.items())]

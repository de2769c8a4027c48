"""Yield, failures, distribution, facets and stats of random logs, compared with plain Python (results_model)."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from fractions import Fraction
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.db import catalog
from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow
from factory_logs.errors import BadRequestError
from factory_logs.ingest.validation import NewLog
from factory_logs.querier.aggregates import Aggregates
from factory_logs.querier.catalog import read_catalog
from factory_logs.querier.result_cache import ResultCache
from factory_logs.querier.results import read_distribution, read_facets, read_failures, read_yield
from factory_logs.querier.stats import read_stats
from factory_logs.querier.sums import Sums
from factory_logs.query import (
    FACTORY_LOGS,
    QueryLimits,
    parse_distribution,
    parse_facets,
    parse_failures,
    parse_stats,
    parse_yield,
)
from factory_logs.settings import Settings
from tests.locking import execute_again_after_deadlock
from tests.querier import results_model as model
from tests.querier.writers import insert

ON_ONE_DATABASE = settings(
    deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
ROWS = 1000
APPS = ("tiger", "koala", "it's")
LENGTHS = {None: None, "6h": timedelta(hours=6), "1d": timedelta(days=1), "1w": timedelta(weeks=1)}
BEGIN = datetime(2024, 11, 2, 12)
ZONES = {
    "UTC": BEGIN,
    "Asia/Kolkata": BEGIN,
    "America/Havana": BEGIN,  # a midnight comes twice, on a day of 25 hours
    "America/Santiago": datetime(2024, 9, 7, 12),  # a day begins at 01:00
    "Australia/Lord_Howe": datetime(2024, 4, 5, 12),  # clocks change by half an hour
}
"""Time zones, and for each the beginning of two days and a half in which a clock changes."""
IMEIS = ("352099001761481", "352099001761499", "352099001761507")

REPAIRS: dict[int | None, dict[str, Any]] = {
    None: {"process": None, "product_imei": None, "measured_battery_capacity": None},
    1: {"process": "Replaced", "product_imei": IMEIS[0], "measured_battery_capacity": 2.5},
    2: {"process": None, "product_imei": IMEIS[0], "measured_battery_capacity": 3.0},
}
REPAIR_FIELDS = [f"repair__{name}" for name in REPAIRS[None]]
NUMBERS = st.sampled_from([0, 1, -1, 3, 3.25, 3.3, 12.5, 2.4e8, 2**53 + 1, 2**63 - 1, 1e300, -1e300, 0.1, 1e-300])
RESULTS = st.sampled_from([True, True, False, False, None, "true", 1])
MEASUREMENTS = st.dictionaries(
    st.sampled_from(["volt", "pass", "passed", "ok", "usb"]),
    st.recursive(
        st.booleans() | NUMBERS | st.none() | st.just("x"),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(st.sampled_from(["pass", "passed", "ok", "v"]), inner, max_size=3)
        ),
        max_leaves=5,
    ),
    max_size=3,
)
LOGS = st.lists(
    st.fixed_dictionaries(
        {
            "app_name": st.sampled_from(["tiger", "koala", "cit"]),
            "product_imei": st.sampled_from([None, *IMEIS]),
            "repair_id": st.sampled_from([None, None, 1, 2]),
            # Few different times, so that many are equal.
            "timestamp": st.integers(0, 40).map(lambda n: BEGIN + n * timedelta(hours=1.5)),
            "tags": st.none() | st.fixed_dictionaries({"jig": st.sampled_from(["J-1", "J-2", None, 7, 7.0, True])}),
            "fields": st.builds(
                lambda passed, measured: {**measured, "passed": passed} if passed is not None else measured,
                RESULTS,
                MEASUREMENTS,
            )
            | st.sampled_from([None, 5, [True, False], {}]),
        }
    ),
    max_size=30,
)
BY = st.lists(
    st.sampled_from(["app_name", "tags__jig", "tags", "product_imei", "fields__volt", *REPAIR_FIELDS]),
    unique=True,
    max_size=2,
)
UNITS = st.sampled_from(["product_imei", "tags__jig", "fields__volt", "repair_id", "repair__product_imei"])
SELECTED = st.sampled_from([None, "tiger"])


async def store(database: Database, logs: Sequence[dict[str, Any]], zone: str = "UTC") -> list[dict[str, Any]]:
    """Store the logs in an otherwise empty table, and return them as stored, with the fields of their repairs.

    Their times are moved to the time at which a clock changes in the zone.
    """
    await execute_again_after_deadlock(database, "truncate factory_logs, repairs restart identity")
    logs = [log | {"timestamp": log["timestamp"] - BEGIN + ZONES[zone]} for log in logs]
    connection = await database.connect_raw()
    try:
        add = "insert into repairs (process, product_imei, measured_battery_capacity) values ($1, $2, $3)"
        await connection.executemany(add, [tuple(REPAIRS[number].values()) for number in (1, 2)])
        rows = []
        for log in logs:
            tags, fields = (None if log[name] is None else json.dumps(log[name]) for name in ("tags", "fields"))
            row = NewLog(log["app_name"], log["product_imei"], log["repair_id"], log["timestamp"], tags, fields)
            rows.append(NewRow(row, None))
        await insert(connection, rows)
    finally:
        await connection.close()
    return [
        {"factory_log_id": number, **log}
        | {f"repair__{name}": value for name, value in REPAIRS[log["repair_id"]].items()}
        for number, log in enumerate(logs, start=1)
    ]


def documents(logs: Sequence[tuple[str, Any, Any]]) -> list[dict[str, Any]]:
    """Generate logs with different contents."""
    moment = datetime(2024, 11, 2)
    return [
        {"app_name": app, "product_imei": None, "repair_id": None, "timestamp": moment, "tags": tags, "fields": fields}
        for app, tags, fields in logs
    ]


def question(app: str | None, **parameters: Any) -> list[tuple[str, str]]:
    """Return the parameters as in a query string."""
    pairs = [] if app is None else [("q", json.dumps({"filters": [{"name": "app_name", "op": "==", "val": app}]}))]
    for name, value in parameters.items():
        pairs += [(name, str(each)) for each in (value if isinstance(value, list) else [value]) if each is not None]
    return pairs


def selected(logs: list[dict[str, Any]], app: str | None) -> list[dict[str, Any]]:
    return [log for log in logs if app in (None, log["app_name"])]


def as_json(value: Any) -> Any:
    """Return the result as a client receives it, with exact numbers."""
    return json.loads(orjson.dumps(value))


def exactly(value: Any) -> Any:
    """Return JSON with each number as the fraction of its text, because 10^300 may be written as an integer or as
    1e300."""
    if isinstance(value, dict):
        return {name: exactly(each) for name, each in value.items()}
    if isinstance(value, list):
        return [exactly(each) for each in value]
    return Fraction(str(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def by_key(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[tuple[str, ...], dict[str, Any]]:
    found = {}
    for row in as_json(rows):
        key = tuple(model.key_text(row.pop(name)) for name in names)
        assert key not in found
        found[key] = row
    return found


@pytest.fixture
def aggregates(database: Database) -> Aggregates:
    return Aggregates(database, Settings())


@pytest.fixture
def sums(database: Database, aggregates: Aggregates) -> Sums:
    """Return sums that are cached at once, with a watermark that is read at once."""
    eager = Settings().model_copy(update={"known_sums_seconds": 0.0, "count_look_seconds": 0.0001})
    return Sums(ResultCache(database, eager), aggregates, eager)


@pytest.mark.slow
@ON_ONE_DATABASE
@given(
    LOGS, SELECTED, st.sampled_from(list(LENGTHS)), BY, st.sampled_from(list(ZONES)),
    UNITS, st.sampled_from(["fields__passed", "fields__ok", "fields__0"]),
)  # fmt: skip
async def test_yields_match_the_definition(
    database: Database,
    aggregates: Aggregates,
    sums: Sums,
    logs: list[dict[str, Any]],
    app: str | None,
    bucket: str | None,
    by: list[str],
    zone: str,
    unit: str,
    passed: str,
) -> None:
    stored = await store(database, logs, zone)
    pairs = question(app, bucket=bucket, by=by, tz=zone, unit=unit, passed=passed)
    result = await read_yield(sums, parse_yield(pairs, FACTORY_LOGS, QueryLimits(), 10), ROWS)
    key = model.key_of(LENGTHS[bucket], by, "UTC" if bucket == "6h" else zone)
    groups, total = model.yields(selected(stored, app), key, unit, passed)
    names = ([] if bucket is None else ["bucket"]) + by
    assert by_key(result.body["buckets"], names) == groups
    assert as_json(result.body["total"]) == total


@pytest.mark.slow
@ON_ONE_DATABASE
@given(
    LOGS,
    SELECTED,
    UNITS,
    st.sampled_from(["fields__passed", "fields__volt__passed"]),
)
async def test_failures_match_the_definition(
    database: Database, sums: Sums, logs: list[dict[str, Any]], app: str | None, unit: str, passed: str
) -> None:
    stored = await store(database, logs)
    asked = parse_failures(question(app, unit=unit, passed=passed), FACTORY_LOGS, QueryLimits(), ROWS)
    body = as_json((await read_failures(sums, asked, ROWS)).body)
    failed, expected = model.failures(selected(stored, app), unit, passed)
    assert body["failed_attempts"] == failed
    assert {row["measurement"]: (row["attempts"], row["units"]) for row in body["failures"]} == expected
    ranks = [(-row["attempts"], row["measurement"] is None, row["measurement"]) for row in body["failures"]]
    assert ranks == sorted(ranks)
    so_far = 0
    for row in body["failures"]:
        so_far += row["attempts"]
        assert row["share"] == row["attempts"] / failed
        assert row["cumulative_share"] == so_far / sum(attempts for attempts, _ in expected.values())


@pytest.mark.slow
@ON_ONE_DATABASE
@given(
    LOGS, SELECTED, BY, st.integers(1, 7), st.sampled_from([None, 0, 3.25]), st.sampled_from([None, 3.25, 5, 1e300]),
)  # fmt: skip
async def test_distributions_match_the_definition(
    database: Database,
    aggregates: Aggregates,
    sums: Sums,
    logs: list[dict[str, Any]],
    app: str | None,
    by: list[str],
    bins: int,
    lower: float | None,
    upper: float | None,
) -> None:
    stored = await store(database, logs)
    pairs = question(app, field="fields__volt", by=by, bins=bins, lower=lower, upper=upper)
    result = await read_distribution(aggregates, parse_distribution(pairs, FACTORY_LOGS, QueryLimits(), 10), ROWS)
    expected = model.distribution(selected(stored, app), model.key_of(None, by), "fields__volt", bins, lower, upper)
    found = by_key(result.body["groups"], by)
    assert found.keys() == expected.keys()
    for key, measures in expected.items():
        assert exactly(found[key]) == exactly(measures)


@pytest.mark.parametrize(
    "numbers",
    [
        [1, 240_000_000, 2],
        [2_400_000_000.1, 2_400_000_000.2, 2_400_000_000.2],
        [10**17, 10**17 + 1, 10**17 + 1],
        [2**63 - 1, -(2**63)],
        [1e308, -1e308, 5e-324],
        [1e-160, 3e-160, 4e-160],
    ],
)
async def test_the_measures_of_a_distribution_are_exact_for_large_and_small_numbers(
    database: Database, aggregates: Aggregates, numbers: list[float]
) -> None:
    stored = await store(database, documents([("tiger", None, {"volt": number}) for number in numbers]))
    limits = min(numbers), max(numbers)
    pairs = question(None, field="fields__volt", lower=limits[0], upper=limits[1])
    result = await read_distribution(aggregates, parse_distribution(pairs, FACTORY_LOGS, QueryLimits(), 10), ROWS)
    expected = model.distribution(stored, model.key_of(None, []), "fields__volt", 20, *limits)
    assert exactly(as_json(result.body["groups"])) == exactly([expected[()]])


@pytest.mark.slow
@ON_ONE_DATABASE
@given(LOGS, SELECTED, st.integers(1, 4))
async def test_facets_match_the_definition(
    database: Database, sums: Sums, logs: list[dict[str, Any]], app: str | None, limit: int
) -> None:
    """With no rows to be known, PostgreSQL orders the values."""
    names = ["app_name", "product_imei", "timestamp", "tags__jig", "tags", "fields__volt", *REPAIR_FIELDS]
    stored = await store(database, logs)
    asked = parse_facets(question(app, field=names, limit=limit), FACTORY_LOGS, QueryLimits(), 10, ROWS)
    expected = {name: model.facet(selected(stored, app), name, limit) for name in names}
    for max_known_rows in (ROWS, 0):
        facets = as_json((await read_facets(sums, asked, max_known_rows)).body)["facets"]
        for facet in facets.values():
            facet["values"] = [(model.key_text(each["value"]), each["count"]) for each in facet["values"]]
        assert facets == expected


@pytest.mark.slow
@ON_ONE_DATABASE
@given(LOGS, SELECTED, st.sampled_from(list(LENGTHS)), BY, st.sampled_from(list(ZONES)))
async def test_stats_match_the_definition(
    database: Database,
    aggregates: Aggregates,
    sums: Sums,
    logs: list[dict[str, Any]],
    app: str | None,
    bucket: str,
    by: list[str],
    zone: str,
) -> None:
    stored = await store(database, logs, zone)
    pairs = question(app, bucket=bucket, by=by, tz=zone, field=["fields__volt", "fields__passed"])
    result = await read_stats(sums, aggregates, parse_stats(pairs, FACTORY_LOGS, QueryLimits(), 10), ROWS)
    key = model.key_of(LENGTHS[bucket], by, "UTC" if bucket == "6h" else zone)
    groups: dict[Any, list[Any]] = {}
    for log in selected(stored, app):
        groups.setdefault(key(log), []).append(log)
    found = by_key(result.body["buckets"], ([] if bucket is None else ["bucket"]) + by)
    if not groups and bucket is None and not by:
        assert found[()]["count"] == 0
        return
    assert found.keys() == groups.keys()
    for name, of_group in groups.items():
        assert found[name]["count"] == len(of_group)
        for field, measures in found[name]["values"].items():
            numbers = sorted(model.numbers_of(of_group, field, with_booleans=True))
            assert measures["count"] == len(numbers)
            if numbers:
                exact = [measures[measure] for measure in ("min", "max", "p50", "p95")]
                expected = [numbers[0], numbers[-1], *(model.nearest_rank(numbers, p) for p in (50, 95))]
                assert exactly(exact) == exactly([value + 0 for value in expected])  # + 0: true counts as 1
                assert measures["avg"] == float(sum(exactly([number + 0 for number in numbers])) / len(numbers))


KEYS = st.sampled_from(["a", "b", "0", "a__b", "'; drop", '"', ":a", "%s", "{}", ""])
DOCUMENTS = st.none() | st.recursive(
    st.sampled_from([None, True, 1, "x"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@ON_ONE_DATABASE
@given(logs=LOGS | st.lists(st.tuples(st.sampled_from(APPS), DOCUMENTS, DOCUMENTS), max_size=30).map(documents))
@pytest.mark.parametrize(("opened", "compared"), [(500, 1000), (1, 1000), (2, 1000), (1, 3)])
async def test_the_catalog_matches_the_definition(
    database: Database,
    sums: Sums,
    monkeypatch: pytest.MonkeyPatch,
    logs: list[dict[str, Any]],
    opened: int,
    compared: int,
) -> None:
    monkeypatch.setattr(catalog, "OPENED", opened)
    monkeypatch.setattr(catalog, "MOST_COMPARED", compared)
    stored = await store(database, logs)
    found = as_json((await read_catalog(sums, ROWS)).body)["apps"]
    for app in found:
        app |= {name: datetime.fromisoformat(app[name]) for name in ("first", "last")}
    assert found == model.catalog(stored)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{f"n{number}": 1 for number in range(11)}, {"a": {"b": {"c": {"d": {"e": {}}}}}}])
async def test_too_many_paths_are_refused(database: Database, sums: Sums, fields: dict[str, Any]) -> None:
    logs = [{"n": {f"k{number}": fields}} for number in range(3)]
    await store(database, documents([("tiger", None, log) for log in logs]))
    with pytest.raises(BadRequestError, match="More than 5 paths"):
        await read_catalog(sums, 5)

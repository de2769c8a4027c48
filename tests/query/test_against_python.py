"""Random queries over the rows: none may cause a database error, and PostgreSQL must agree with a tiny evaluator."""

import json
import operator
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.db.engine import Database
from factory_logs.errors import BadRequestError
from factory_logs.query import FACTORY_LOGS, REPAIRS, Limits, compile_count, compile_rows, parse_query
from factory_logs.query.operators import ALIASES

from .conftest import LOG_ROWS, REPAIR_ROWS, run

ON_ONE_DATABASE = settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
MISSING = object()
COMPARE: dict[str, Any] = {
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
    "in": lambda left, right: left in right,
    "not_in": lambda left, right: left not in right,
}

NUMBERS = st.sampled_from([0, 1, 1.0, -1, 2**53, 2**53 + 1, 3.28, 12, 2**63, 10**30, 1e308])
TEXTS = st.sampled_from(["cit", "CIT", "J-1", "J-2", "1", "", "3.28", "ÿ"])
SCALARS = NUMBERS | TEXTS | st.booleans()
PATHS = st.sampled_from(["tags__n", "tags__jig", "tags__ok", "fields__b__v", "fields__b", "tags__none"])
SINGLE = st.sampled_from(["==", "!=", ">", "<", ">=", "<="])
LISTED = st.sampled_from(["in", "not_in"])


def leaves(names: st.SearchStrategy[str], values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return (
        st.fixed_dictionaries({"name": names, "op": SINGLE, "val": values})
        | st.fixed_dictionaries({"name": names, "op": LISTED, "val": st.lists(values, max_size=3)})
        | st.fixed_dictionaries({"name": names, "op": st.sampled_from(["is_null", "is_not_null"])})
    )


INTS = st.sampled_from([0, 1, 2, 3, 6, 2**31, 2**63, -(2**70)])
LEAVES = (
    leaves(PATHS, SCALARS)
    | leaves(st.sampled_from(["app_name", "product_imei", "repair__process"]), TEXTS | st.just("Replaced"))
    | leaves(st.sampled_from(["factory_log_id", "repair_id", "repair__repair_id"]), INTS)
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: (
        st.builds(lambda items: {"or": items}, st.lists(inner, max_size=3))
        | st.builds(lambda items: {"and": items}, st.lists(inner, max_size=3))
        | st.builds(lambda item: {"not": item}, inner)
    ),
    max_leaves=8,
)


def json_type(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def at(row: dict[str, Any], name: str) -> Any:
    first, *rest = name.split("__")
    if first == "repair":
        repair_id = row.get("repair_id")
        return MISSING if repair_id is None else REPAIR_ROWS[repair_id - 1].get(rest[0])
    value = row.get(first)
    for part in rest:
        value = value.get(part) if isinstance(value, dict) else None
    return value


def matches(f: dict[str, Any], row: dict[str, Any]) -> bool:
    if "or" in f:
        return any(matches(item, row) for item in f["or"])
    if "and" in f:
        return all(matches(item, row) for item in f["and"])
    if "not" in f:
        return not matches(f["not"], row)
    value, op = at(row, f["name"]), f["op"]
    if value is MISSING:
        return False
    if op in ("is_null", "is_not_null"):
        return (value is None) is (op == "is_null")
    if f["val"] == []:
        return bool(op == "not_in")
    if value is None:
        return False
    of_type = [v for v in (f["val"] if isinstance(f["val"], list) else [f["val"]]) if json_type(v) is json_type(value)]
    if not of_type:
        return False
    return bool(COMPARE[op](value, of_type if isinstance(f["val"], list) else of_type[0]))


@ON_ONE_DATABASE
@given(st.lists(FILTERS, max_size=2))
async def test_postgresql_agrees_with_python(filled: Database, filters: list[dict[str, Any]]) -> None:
    rows = [{"factory_log_id": index + 1} | row for index, row in enumerate(LOG_ROWS)]
    expected = [row["factory_log_id"] for row in rows if all(matches(f, row) for f in filters)]
    assert await run(filled, {"filters": filters}) == expected


JSON_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text() | SCALARS,
    lambda inner: st.lists(inner | st.none(), max_size=3) | st.dictionaries(st.text(), inner | st.none(), max_size=3),
    max_leaves=5,
)
MOMENTS = st.sampled_from(["0001-01-01", "9999-12-31 23:59:59.999999", -62135596800000, 0]) | st.datetimes().map(str)
NAMES = (
    st.sampled_from([*FACTORY_LOGS.fields, *REPAIRS.fields, *(f"repair__{name}" for name in REPAIRS.fields), "repair"])
    | PATHS
    | st.text(min_size=1).map(lambda part: f"tags__{part}")
    | st.integers().map(lambda part: f"fields__{part}")
)
ANY_LEAF = st.fixed_dictionaries(
    {"name": NAMES, "op": st.sampled_from(sorted(ALIASES)), "val": JSON_VALUES | MOMENTS | LEAVES | st.lists(MOMENTS)}
) | st.fixed_dictionaries({"name": NAMES, "op": SINGLE, "field": NAMES})
KEYS = st.lists(
    st.fixed_dictionaries({"field": NAMES}, optional={"direction": st.sampled_from(["asc", "desc"])}), max_size=3
)
COUNTS = st.sampled_from([0, 1, 5, 2**63, 10**40])


@settings(ON_ONE_DATABASE, max_examples=200)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "filters": st.lists(ANY_LEAF | st.builds(lambda f: {"not": f}, ANY_LEAF), max_size=2),
            "order_by": KEYS,
            "group_by": KEYS,
            "limit": COUNTS,
            "offset": COUNTS,
        },
    )
)
async def test_no_query_that_parses_causes_a_database_error(filled: Database, q: dict[str, Any]) -> None:
    for resource in (FACTORY_LOGS, REPAIRS):
        try:
            query = parse_query(json.dumps(q), resource, Limits())
        except BadRequestError:
            continue
        async with filled.engine.connect() as connection:
            found = (await connection.execute(compile_rows(query, resource))).all()
            assert (await connection.execute(compile_count(query, resource))).scalar_one() == len(found)

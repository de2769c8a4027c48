"""Random queries on the rows: none causes a database error, and PostgreSQL agrees with a tiny evaluator."""

import json
import operator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.db.engine import Database
from factory_logs.errors import BadRequestError
from factory_logs.query import FACTORY_LOGS, REPAIRS, QueryLimits, compile_count, compile_rows, parse_query
from tests.query.strategies import ANY_LEAF, COUNTS, FILTERS, KEYS

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


@pytest.mark.slow
@ON_ONE_DATABASE
@given(st.lists(FILTERS, max_size=2))
async def test_postgresql_agrees_with_python(filled: Database, filters: list[dict[str, Any]]) -> None:
    rows = [{"factory_log_id": index + 1} | row for index, row in enumerate(LOG_ROWS)]
    expected = [row["factory_log_id"] for row in rows if all(matches(f, row) for f in filters)]
    assert await run(filled, {"filters": filters}) == expected


@pytest.mark.slow
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
            query = parse_query(json.dumps(q), resource, QueryLimits())
        except BadRequestError:
            continue
        async with filled.engine.connect() as connection:
            found = (await connection.execute(compile_rows(query, resource))).all()
            assert (await connection.execute(compile_count(query, resource))).scalar_one() == len(found)

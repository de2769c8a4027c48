"""A traversal by cursor returns the records of the whole query in the same order, for every page size."""

import json
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from factory_logs.db.engine import Database
from factory_logs.errors import BadRequestError
from factory_logs.query import (
    FACTORY_LOGS,
    QueryLimits,
    Resource,
    compile_after,
    compile_keys,
    compile_rows,
    parse_query,
)
from tests.query.strategies import NAMES

DIRECTIONS = st.sampled_from(["asc", "desc"])
ORDERS = st.lists(st.fixed_dictionaries({"field": NAMES, "direction": DIRECTIONS}), max_size=3)


async def traverse(database: Database, q: dict[str, Any], size: int, resource: Resource = FACTORY_LOGS) -> list[int]:
    """Return all ids, page by page; the first page begins where the whole result begins."""
    query = parse_query(json.dumps(q), resource, QueryLimits())
    async with database.engine.connect() as connection:
        rows = await connection.execute(compile_rows(query, resource).limit(size))
        found = [row[0] for row in rows]
        while found:
            keys = (await connection.execute(compile_keys(query, resource, found[-1]))).one() if q["order_by"] else ()
            page: list[int] = []
            for statement in compile_after(query, resource, tuple(keys), found[-1]):
                if len(page) < size:
                    page += [row[0] for row in await connection.execute(statement.limit(size - len(page)))]
            if not page:
                break
            found += page
    return found


async def whole(database: Database, q: dict[str, Any], resource: Resource = FACTORY_LOGS) -> list[int]:
    async with database.engine.connect() as connection:
        rows = compile_rows(parse_query(json.dumps(q), resource, QueryLimits()), resource)
        return [row[0] for row in await connection.execute(rows)]


@pytest.mark.slow
@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(ORDERS, st.integers(1, 4))
async def test_keyset_pages_of_any_order_equal_the_whole_result(
    filled: Database, order_by: list[dict[str, str]], size: int
) -> None:
    q = {"order_by": order_by}
    try:
        parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits())
    except BadRequestError:
        return
    expected = await whole(filled, q)
    assert len(expected) == 6
    assert await traverse(filled, q, size) == expected


@pytest.mark.slow
@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(
    "name", ["repair_id", "product_imei", "timestamp", "tags__n", "tags__jig", "repair__process", "tags", "created_by"]
)
async def test_nulls_and_equal_keys_at_page_borders_are_handled(filled: Database, name: str, direction: str) -> None:
    for second in ([], [{"field": "app_name", "direction": "desc"}], [{"field": "repair__product_imei"}]):
        q = {"order_by": [{"field": name, "direction": direction}, *second]}
        for size in (1, 2, 5):
            assert await traverse(filled, q, size) == await whole(filled, q)


@pytest.mark.slow
@pytest.mark.parametrize(
    "q",
    [
        {"order_by": []},
        {"order_by": [{"field": "factory_log_id", "direction": "desc"}]},
        {"order_by": [{"field": "timestamp", "direction": "desc"}]},
        {"order_by": [{"field": "timestamp"}, {"field": "app_name"}]},
        {"order_by": [{"field": "app_name"}, {"field": "timestamp"}]},
    ],
)
async def test_a_page_deep_inside_reads_no_more_rows_than_the_first(database: Database, q: dict[str, Any]) -> None:
    """Checked by the rows that PostgreSQL has read, not by time."""
    async with database.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO factory_logs (app_name, timestamp) SELECT 'app-' || n % 500,"
            " timestamp '2024-01-31' + n * interval '1 s' FROM generate_series(1, 20000) AS n"
        )
    async with database.engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        await connection.exec_driver_sql("VACUUM ANALYZE factory_logs")
    query = parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits())
    async with database.engine.connect() as connection:
        deep = [row[0] for row in await connection.execute(compile_rows(query, FACTORY_LOGS).offset(15_000).limit(1))]
        keys = (await connection.execute(compile_keys(query, FACTORY_LOGS, deep[0]))).one() if q["order_by"] else ()
        first, *_ = compile_after(query, FACTORY_LOGS, tuple(keys), deep[0])
        statement = first.limit(101).compile(dialect=postgresql.dialect(), compile_kwargs={"literal_binds": True})
        explained = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}")
        (plan,) = orjson.loads(orjson.dumps(explained.scalar_one()))  # an orjson.Fragment
    assert rows_read(plan["Plan"]) < 400, json.dumps(plan, indent=1)


def rows_read(node: dict[str, Any]) -> float:
    """Return the rows that the scans have read, including rows that a filter has removed."""
    inner = sum(rows_read(child) for child in node.get("Plans", ()))
    if "Scan" not in node["Node Type"]:
        return inner
    return float(inner + node["Actual Rows"] * node["Actual Loops"] + node.get("Rows Removed by Filter", 0))

"""A walk gives what the whole query gives, in the same order, wherever its pages end."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.db.engine import Database
from factory_logs.errors import BadRequestError
from factory_logs.query import FACTORY_LOGS, Limits, Resource, compile_after, compile_keys, compile_rows, parse_query

from .test_against_python import NAMES

DIRECTIONS = st.sampled_from(["asc", "desc"])
ORDERS = st.lists(st.fixed_dictionaries({"field": NAMES, "direction": DIRECTIONS}), max_size=3)


async def walk(database: Database, q: dict[str, Any], size: int, resource: Resource = FACTORY_LOGS) -> list[int]:
    """All ids, page by page; the first page begins where the whole result does."""
    query = parse_query(json.dumps(q), resource, Limits())
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
        rows = compile_rows(parse_query(json.dumps(q), resource, Limits()), resource)
        return [row[0] for row in await connection.execute(rows)]


@settings(
    deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(ORDERS, st.integers(1, 4))
async def test_any_order_is_walked_as_it_is_read_whole(
    filled: Database, order_by: list[dict[str, str]], size: int
) -> None:
    q = {"order_by": order_by}
    try:
        parse_query(json.dumps(q), FACTORY_LOGS, Limits())
    except BadRequestError:
        return
    expected = await whole(filled, q)
    assert len(expected) == 6
    assert await walk(filled, q, size) == expected


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize(
    "name", ["repair_id", "product_imei", "timestamp", "tags__n", "tags__jig", "repair__process", "tags", "created_by"]
)
async def test_nulls_and_equal_keys_are_passed_on_every_page_border(
    filled: Database, name: str, direction: str
) -> None:
    for second in ([], [{"field": "app_name", "direction": "desc"}], [{"field": "repair__product_imei"}]):
        q = {"order_by": [{"field": name, "direction": direction}, *second]}
        for size in (1, 2, 5):
            assert await walk(filled, q, size) == await whole(filled, q)

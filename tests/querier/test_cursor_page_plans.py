"""A page in the middle of a traversal reads only that page: the index scan starts where the previous page ended.

The tests check plans, as in test_plans.py, on the same logs.
"""

import json
import re
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from factory_logs.db.connection_pool import Planning
from factory_logs.db.prepared_statements import compile_statement
from factory_logs.querier.counts import OnTop
from factory_logs.querier.pages import page_with_placeholders, planning, up_to
from factory_logs.query import FACTORY_LOGS, QueryLimits, compile_after, compile_keys, parse_query, with_placeholders
from tests.querier.plans import APP, ID, IMEI, LOGS, PAGE, TIME, UNIT, indexes, leaf

pytestmark = pytest.mark.slow

WALKS = {
    "by id": ({}, [], ID),
    "by time": ({}, ["timestamp"], TIME),
    "by app and time": ({}, ["app_name", "timestamp"], APP),
    "by unit and time": ({}, ["product_imei", "timestamp"], IMEI),
    "an app's logs by time": (leaf("app_name", "==", "packing"), ["timestamp"], APP),
    "an app's logs by app and time": (leaf("app_name", "==", "packing"), ["app_name", "timestamp"], APP),
    "a unit's logs by time": (leaf("product_imei", "==", UNIT), ["timestamp"], IMEI),
    "a unit's logs by unit and time": (leaf("product_imei", "==", UNIT), ["product_imei", "timestamp"], IMEI),
    "the logs of some days by time": (leaf("timestamp", ">=", "2023-01-03"), ["timestamp"], TIME),
}


async def explained(connection: asyncpg.Connection, statement: Select[Any]) -> str:
    bound = compile_statement(statement, dialect.dialect())
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF) {bound.sql}", *bound.bind([]))
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("name", WALKS)
async def test_a_page_by_cursor_in_the_middle_is_read_from_an_index(
    connection: asyncpg.Connection,
    name: str,
    direction: str,
) -> None:
    filters, fields, index = WALKS[name]
    if not fields and direction == "desc":
        fields = ["factory_log_id"]
    q = {
        "filters": [filters] if filters else [],
        "order_by": [{"field": field, "direction": direction} for field in fields],
    }
    query = up_to(LOGS, parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits()), FACTORY_LOGS)
    last = await connection.fetchval(
        "SELECT factory_log_id FROM factory_logs WHERE app_name = 'packing' AND product_imei = $1 "
        "ORDER BY timestamp OFFSET 1 LIMIT 1",
        UNIT,
    )
    keys: tuple[Any, ...] = ()
    if fields:
        statement = compile_statement(compile_keys(query, FACTORY_LOGS, last), dialect.dialect())
        keys = tuple(await connection.fetchrow(statement.sql, *statement.bind([])))
    left = PAGE + 1
    for statement in compile_after(query, FACTORY_LOGS, keys, last):
        ties = f"{statement}".count("timestamp = ") > 0  # either index may find the few logs of one time
        found = await explained(connection, statement.limit(left))
        assert indexes(found) <= ({index, TIME} if ties else {index}), found
        assert not re.search(r"(?<!Incremental )Sort \(", found), found
        read = re.search(r"Scan (?:Backward )?using \w+ on factory_logs \(actual rows=([\d.]+)", found)
        assert read is not None, found
        assert float(read[1]) <= left + 1, found  # one more to detect the end of a group of equal times
        assert "Rows Removed" not in found, found
        left -= int(float(re.match(r"Limit +\(actual rows=([\d.]+)", found)[1]))
        if left == 0:
            return
    raise AssertionError("the traversal ended before its page was full")


async def test_a_page_by_an_unindexed_order_reads_the_selected_logs_once_and_holds_only_the_page(
    connection: asyncpg.Connection,
) -> None:
    q = {"order_by": [{"field": "fields__battery__voltage"}]}
    query = up_to(LOGS, parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits()), FACTORY_LOGS)
    keys_of = compile_statement(compile_keys(query, FACTORY_LOGS, LOGS // 2), dialect.dialect())
    keys = tuple(await connection.fetchrow(keys_of.sql, *keys_of.bind([])))
    first, *_ = compile_after(query, FACTORY_LOGS, keys, LOGS // 2)
    found = await explained(connection, first.limit(PAGE + 1))
    kilobytes = [int(number) for number in re.findall(r"Sort Method: .* Memory: (\d+)kB", found)]
    assert kilobytes, found
    assert max(kilobytes) < 500, found  # all records would take tens of MB
    assert found.count(" on factory_logs ") == 1, found


async def test_one_plan_for_any_value_finds_a_units_logs_by_unit(connection: asyncpg.Connection) -> None:
    query = parse_query(json.dumps({"filters": [leaf("product_imei", "==", UNIT)]}), FACTORY_LOGS, QueryLimits())
    on_top = OnTop(LOGS - 20, LOGS - 5, 1, 40)
    assert planning(query, on_top) is Planning.FOR_ANY_VALUES
    template, values = with_placeholders(query)
    values += (0, PAGE)
    page = compile_statement(page_with_placeholders(template, FACTORY_LOGS, len(values), True), dialect.dialect())
    literals = ", ".join(f"'{value}'" for value in page.bind([*values, *on_top]))
    await connection.execute(f"SET plan_cache_mode TO {Planning.FOR_ANY_VALUES.value}")
    try:
        await connection.execute(f"PREPARE page AS {page.sql}")
        found = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE page({literals})"))
    finally:
        await connection.execute(f"SET plan_cache_mode TO {Planning.FOR_THESE_VALUES.value}")
    assert UNIT not in found, found  # it is a generic plan
    assert IMEI in indexes(found), found
    assert indexes(found) <= {IMEI, ID}, found

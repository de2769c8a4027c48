"""A page in the middle of a walk costs that page: an index is read from where the last page ended, and no further.

Pinned by plans, as in test_plans.py, whose logs these are.
"""

import json
import re
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from factory_logs.db.page_connections import Planning
from factory_logs.db.slots import compile_statement
from factory_logs.query import FACTORY_LOGS, Limits, compile_after, compile_keys, parse_query, shape_of
from factory_logs.reading.counts import OnTop
from factory_logs.reading.pages import page_with_slots, planning
from factory_logs.reading.walks import up_to
from tests.reading.test_plans import APP, ID, IMEI, LOGS, PAGE, TIME, UNIT, connection, indexes, leaf  # noqa: F401

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


async def explained(connection: asyncpg.Connection, statement: Select[Any]) -> str:  # noqa: F811
    bound = compile_statement(statement, dialect.dialect())
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, BUFFERS OFF) {bound.sql}", *bound.bind([]))
    return "\n".join(row[0] for row in rows)


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("name", WALKS)
async def test_the_page_in_the_middle_of_a_walk_is_read_from_an_index(
    connection: asyncpg.Connection,  # noqa: F811
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
    query = up_to(LOGS, parse_query(json.dumps(q), FACTORY_LOGS, Limits()), FACTORY_LOGS)
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
        ties = f"{statement}".count("timestamp = ") > 0  # the few logs of one moment may be found by either index
        found = await explained(connection, statement.limit(left))
        assert indexes(found) <= ({index, TIME} if ties else {index}), found
        assert not re.search(r"(?<!Incremental )Sort \(", found), found
        read = re.search(r"Scan (?:Backward )?using \w+ on factory_logs \(actual rows=([\d.]+)", found)
        assert read is not None, found
        assert float(read[1]) <= left + 1, found  # one more to see where a group of equal times ends
        assert "Rows Removed" not in found, found
        left -= int(float(re.match(r"Limit +\(actual rows=([\d.]+)", found)[1]))
        if left == 0:
            return
    raise AssertionError("the walk ended before its page was full")


async def test_a_page_by_an_order_that_no_index_has_reads_what_q_selects_once_and_keeps_no_more_than_itself(
    connection: asyncpg.Connection,  # noqa: F811
) -> None:
    q = {"order_by": [{"field": "fields__battery__voltage"}]}
    query = up_to(LOGS, parse_query(json.dumps(q), FACTORY_LOGS, Limits()), FACTORY_LOGS)
    keys_of = compile_statement(compile_keys(query, FACTORY_LOGS, LOGS // 2), dialect.dialect())
    keys = tuple(await connection.fetchrow(keys_of.sql, *keys_of.bind([])))
    first, *_ = compile_after(query, FACTORY_LOGS, keys, LOGS // 2)
    found = await explained(connection, first.limit(PAGE + 1))
    kilobytes = [int(number) for number in re.findall(r"Sort Method: .* Memory: (\d+)kB", found)]
    assert kilobytes, found
    assert max(kilobytes) < 500, found  # all of them would take tens of MB
    assert found.count(" on factory_logs ") == 1, found


async def test_one_plan_for_any_value_finds_a_units_logs_by_unit(connection: asyncpg.Connection) -> None:  # noqa: F811
    """The plan of a page that is kept for all units; with what it counts and where its ids begin."""
    query = parse_query(json.dumps({"filters": [leaf("product_imei", "==", UNIT)]}), FACTORY_LOGS, Limits())
    on_top = OnTop(LOGS - 20, LOGS - 5, 1, 40)
    assert planning(query, on_top) is Planning.FOR_ANY_VALUES
    shape, values = shape_of(query)
    values += (0, PAGE)
    page = compile_statement(page_with_slots(shape, FACTORY_LOGS, len(values), True), dialect.dialect())
    literals = ", ".join(f"'{value}'" for value in page.bind([*values, *on_top]))
    await connection.execute(f"SET plan_cache_mode TO {Planning.FOR_ANY_VALUES.value}")
    try:
        await connection.execute(f"PREPARE page AS {page.sql}")
        found = "\n".join(row[0] for row in await connection.fetch(f"EXPLAIN EXECUTE page({literals})"))
    finally:
        await connection.execute(f"SET plan_cache_mode TO {Planning.FOR_THESE_VALUES.value}")
    assert UNIT not in found, found  # it is for any value
    assert IMEI in indexes(found), found
    assert indexes(found) <= {IMEI, ID}, found

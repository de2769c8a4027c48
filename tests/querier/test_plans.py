"""Which index serves each usual query, checked by plans and not by times (docs/explanation/indexes.md).

There are enough logs for PostgreSQL to prefer an index: a query that scans the whole table here also scans any larger
table.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import asyncpg as dialect

from factory_logs.db.aggregates import Selection, group_rows, percentile_rows
from factory_logs.db.count_cache import counting
from factory_logs.db.results import histogram_rows, moving_range_rows, number_logs, number_rows
from factory_logs.query import FACTORY_LOGS, QueryLimits, compile_filters, compile_rows, field_number, parse_query
from factory_logs.query.fields import resolve
from tests.querier.plans import APP, ID, IMEI, LOGS, PAGE, REPAIR, TAGS, TIME, UNIT, indexes, leaf

pytestmark = pytest.mark.slow

LAST_HOUR = {"name": "timestamp", "op": ">=", "val": "2023-01-14 20:20:00"}
NEWEST = [{"field": "timestamp", "direction": "desc"}]


@dataclass(frozen=True)
class Question:
    """A query, and the indexes that may serve its first page and its first count."""

    q: dict[str, Any]
    page: set[str]
    count: set[str]


QUESTIONS = {
    "the first logs": Question({}, {ID}, {ID, TIME}),
    "the newest logs": Question({"order_by": NEWEST}, {TIME}, {ID, TIME}),
    "a unit's logs": Question({"filters": [leaf("product_imei", "==", UNIT)]}, {IMEI}, {IMEI}),
    "a unit's newest logs": Question(
        {"filters": [leaf("product_imei", "==", UNIT)], "order_by": NEWEST}, {IMEI}, {IMEI}
    ),
    "a unit's logs of some days": Question(
        {
            "filters": [
                leaf("product_imei", "==", UNIT),
                leaf("timestamp", ">=", "2023-01-03"),
                leaf("timestamp", "<", "2023-01-09"),
            ]
        },
        {IMEI},
        {IMEI},
    ),
    "an app's logs of the last hour": Question(
        {"filters": [leaf("app_name", "==", "rework"), LAST_HOUR]}, {APP}, {APP}
    ),
    "an app's newest logs": Question({"filters": [leaf("app_name", "==", "rework")], "order_by": NEWEST}, {APP}, {APP}),
    "the logs of the last hour": Question({"filters": [LAST_HOUR]}, {TIME, ID}, {TIME}),
    "a repair's logs": Question({"filters": [leaf("repair_id", "==", 77)]}, {REPAIR}, {REPAIR}),
    "a serial number": Question({"filters": [leaf("tags__serial_number", "==", "TG000004000")]}, {TAGS}, {TAGS}),
    "a jig's newest failures": Question(
        {
            "filters": [leaf("tags__jig_id", "==", "J-07"), leaf("fields__passed", "==", False), LAST_HOUR],
            "order_by": NEWEST,
        },
        {TIME, TAGS},
        {TIME, TAGS},
    ),
}


async def plan(connection: asyncpg.Connection, statement: Select[Any], options: str = "verbose false") -> str:
    compiled = statement.compile(dialect=dialect.dialect())
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    return "\n".join(row[0] for row in await connection.fetch(f"explain ({options}) {compiled}", *values))


@pytest.mark.parametrize("name", QUESTIONS)
async def test_the_first_page_uses_the_index(connection: asyncpg.Connection, name: str) -> None:
    question = QUESTIONS[name]
    query = parse_query(json.dumps(question.q), FACTORY_LOGS, QueryLimits())
    known = await first_of(connection, question.q)
    found = await plan(connection, compile_rows(query, FACTORY_LOGS, known).limit(PAGE))
    assert indexes(found) <= question.page, found


@pytest.mark.parametrize("name", QUESTIONS)
async def test_a_first_count_uses_the_index(connection: asyncpg.Connection, name: str) -> None:
    question = QUESTIONS[name]
    conditions = compile_filters(parse_query(json.dumps(question.q), FACTORY_LOGS, QueryLimits()), FACTORY_LOGS)
    found = await plan(connection, counting(conditions, LOGS))
    assert indexes(found) <= question.count, found


@pytest.mark.parametrize("name", QUESTIONS)
async def test_new_logs_are_counted_without_reading_known_ones(connection: asyncpg.Connection, name: str) -> None:
    question = QUESTIONS[name]
    conditions = compile_filters(parse_query(json.dumps(question.q), FACTORY_LOGS, QueryLimits()), FACTORY_LOGS)
    found = await plan(connection, counting(conditions, LOGS - 5, LOGS - 20))
    assert indexes(found) <= question.page | question.count | {ID}, found
    assert "the whole" not in str(indexes(found))


async def first_of(connection: asyncpg.Connection, q: dict[str, Any]) -> int:
    """Return the cached count of a filter."""
    conditions = compile_filters(parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits()), FACTORY_LOGS)
    compiled = counting(conditions, LOGS).compile(dialect=dialect.dialect())
    values = [compiled.params[name] for name in compiled.positiontup or ()]
    lowest: int = (await connection.fetchrow(str(compiled), *values))["lowest"]
    return lowest


async def test_a_scan_by_id_begins_at_the_first_match(connection: asyncpg.Connection) -> None:
    """PostgreSQL would scan all older logs before the first log of the last days."""
    q = {"filters": [leaf("timestamp", ">=", "2023-01-10")]}
    query = parse_query(json.dumps(q), FACTORY_LOGS, QueryLimits())
    lowest = await first_of(connection, q)
    assert lowest > LOGS // 2
    found = await plan(connection, compile_rows(query, FACTORY_LOGS, lowest).limit(PAGE))
    assert f"Index Cond: (factory_log_id >= '{lowest}'::bigint)" in found


async def test_a_number_is_taken_out_of_a_log_once_for_all_measures(connection: asyncpg.Connection) -> None:
    """The scan returns the number, not the JSON from which each measure would take it again; and it can be parallel."""
    number = field_number(resolve("fields__battery__voltage", FACTORY_LOGS), FACTORY_LOGS, FACTORY_LOGS.table)
    everything = Selection()
    logs = number_logs(everything, number, on_cluster=False)
    for statement in (
        number_rows(everything, logs, Decimal(3), Decimal(4)),
        moving_range_rows(everything, logs),
        histogram_rows(everything, logs, [Decimal(3), Decimal(4)]),
        group_rows(everything, [number], on_cluster=False),
        percentile_rows(everything, [number]),
    ):
        async with connection.transaction():
            await connection.execute("set local parallel_setup_cost = 0; set local parallel_tuple_cost = 0")
            found = await plan(connection, statement, "verbose")
        *_, of_scan = [line for line in found.splitlines() if "Output:" in line]
        assert "{battery,voltage}" in of_scan, found
        assert "Parallel Seq Scan" in found, found

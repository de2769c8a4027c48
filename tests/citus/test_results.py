"""Results that group logs by value on the nodes, so that few rows are sent to the coordinator."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Select

from factory_logs.db.aggregates import Selection
from factory_logs.db.citus_results import percentile_rows
from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow
from factory_logs.db.prepared_statements import compile_statement
from factory_logs.db.results import number_logs, number_rows
from factory_logs.query import FACTORY_LOGS, field_number
from factory_logs.query.fields import resolve
from tests.querier.writers import insert, log

NUMBERS = 7
"""The number of distinct numbers at `tags__n` in the logs of tests/querier/writers.py."""


def number() -> ColumnElement[Any]:
    return field_number(resolve("tags__n", FACTORY_LOGS), FACTORY_LOGS, FACTORY_LOGS.table)


def plans_of_nodes(plan: Any) -> Iterator[dict[str, Any]]:
    """Yield the plan of one shard for each query of all shards, at any depth in the plan of the coordinator."""
    if isinstance(plan, dict) and plan.get("Task Count", 0) > 1:
        yield plan["Tasks"][0]["Remote Plan"][0][0]["Plan"]
    elif isinstance(plan, dict | list):
        for part in plan.values() if isinstance(plan, dict) else plan:
            yield from plans_of_nodes(part)


@pytest.mark.parametrize(
    "statement",
    [
        number_rows(Selection(), number_logs(Selection(), number(), on_cluster=True), None, None),
        percentile_rows(Selection(), number(), [0.5]),
    ],
)
async def test_a_node_sends_each_number_once(cluster: Database, statement: Select[Any]) -> None:
    connection = await cluster.connect_raw()
    await insert(connection, [NewRow(log(each), None) for each in range(5000)])
    compiled = compile_statement(statement, cluster.engine.dialect)
    found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled.sql}", *compiled.bind([]))
    await connection.close()
    (sent,) = plans_of_nodes(json.loads(found))
    assert 0 < sent["Actual Rows"] <= NUMBERS

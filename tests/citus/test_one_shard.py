"""A query for logs with given ids asks only the shards of these ids."""

import json
from typing import Any

import pytest
from sqlalchemy import Select

from factory_logs.db.citus import IDS_OF_SHARD_KEY_BITS
from factory_logs.db.engine import Database
from factory_logs.db.prepared_statements import compile_statement
from factory_logs.query import FACTORY_LOGS, QueryLimits, compile_count, compile_rows, parse_query, with_placeholders
from tests.conftest import TEST_SHARDS

NEIGHBOURS = [1 << IDS_OF_SHARD_KEY_BITS, (1 << IDS_OF_SHARD_KEY_BITS) + 1]


def with_filters(*filters: dict[str, Any]) -> str:
    return json.dumps({"filters": filters})


def ids(op: str, val: object) -> dict[str, Any]:
    return {"name": "factory_log_id", "op": op, "val": val}


def asked_shards(plan: Any) -> list[int]:
    """Return the number of shards that each query of the nodes asks, at any depth of the plan."""
    if isinstance(plan, list):
        return [shards for part in plan for shards in asked_shards(part)]
    if not isinstance(plan, dict):
        return []
    return [plan["Task Count"]] if "Task Count" in plan else asked_shards(list(plan.values()))


async def explained(cluster: Database, statement: Select[Any], values: list[Any]) -> list[int]:
    connection = await cluster.connect_raw()
    compiled = compile_statement(statement, cluster.engine.dialect)
    plan = await connection.fetchval(f"EXPLAIN (FORMAT JSON) {compiled.sql}", *compiled.bind(values))
    await connection.close()
    return asked_shards(json.loads(plan))


@pytest.mark.parametrize("compiled", [compile_rows, compile_count])
@pytest.mark.parametrize(
    ("q", "shards"),
    [
        (with_filters(ids("==", 5000)), [1]),
        (with_filters(ids("in", NEIGHBOURS)), [1]),
        (with_filters(ids("in", [5000, 2**64])), [1]),
        (with_filters({"name": "app_name", "op": "==", "val": "cit"}, ids("==", 5000)), [1]),
        (with_filters({"or": [ids("==", NEIGHBOURS[0]), ids("==", NEIGHBOURS[1])]}), [1]),
        (with_filters(ids("!=", 5000)), [TEST_SHARDS]),
        (with_filters(ids("not_in", NEIGHBOURS)), [TEST_SHARDS]),
        (with_filters({"not": ids("==", 5000)}), [TEST_SHARDS]),
        (with_filters({"or": [ids("==", 5000), {"name": "app_name", "op": "==", "val": "cit"}]}), [TEST_SHARDS]),
    ],
)
async def test_only_the_shards_of_the_ids_are_asked(
    cluster: Database, compiled: Any, q: str, shards: list[int]
) -> None:
    query, values = with_placeholders(parse_query(q, FACTORY_LOGS, QueryLimits()))
    assert await explained(cluster, compiled(query, FACTORY_LOGS), values) == shards
    query = parse_query(q, FACTORY_LOGS, QueryLimits())
    assert await explained(cluster, compiled(query, FACTORY_LOGS), []) == shards

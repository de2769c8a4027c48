"""`factory-logs doctor` checks each node of a cluster."""

import asyncio
import json
from typing import Any

import asyncpg

from tests.cli.conftest import Query, Run, query, run
from tests.serving import free_port

FSYNC = "SELECT nodename, nodeport, result FROM pg_dist_node JOIN run_command_on_all_nodes('SHOW fsync') USING (nodeid)"
__all__ = ["query", "run"]


def checked_nodes(run: Run) -> dict[str, dict[str, Any]]:
    rows = json.loads(run("doctor", "--json").stdout)
    return {row["subject"]: row for row in rows if row["subject"].startswith("node ")}


def test_each_node_is_checked(run: Run, query: Query) -> None:
    settings = {f"node {node['nodename']}:{node['nodeport']}": node["result"] for node in query(FSYNC)}
    nodes = checked_nodes(run)
    assert len(nodes) > 1
    assert {subject: row["state"] for subject, row in nodes.items()} == {
        subject: "ok" if fsync == "on" else "error" for subject, fsync in settings.items()
    }


def test_a_node_that_is_not_active_is_an_error(run: Run, migrated_url: str) -> None:
    port = free_port()
    asyncio.run(execute(migrated_url, "SELECT citus_add_inactive_node('127.0.0.1', $1)", port))
    try:
        node = checked_nodes(run)[f"node 127.0.0.1:{port}"]
    finally:
        asyncio.run(execute(migrated_url, "SELECT citus_remove_node('127.0.0.1', $1)", port))
    assert (node["state"], node["found"]) == ("error", "does not respond: it is not active")


async def execute(url: str, sql: str, *values: object) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(sql, *values)
    await connection.close()

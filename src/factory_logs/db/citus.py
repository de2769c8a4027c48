"""Code for Citus clusters; a single PostgreSQL server does not need it (docs/how-to/scale-out.md).

`factory_logs` is distributed by `shard_key`: each key covers 1,024 ids. Every node has a copy of `repairs`; all other
tables are on the coordinator only. A new connection checks whether `factory_logs` is distributed, and sets
`Connection.is_distributed`. The service connects to the coordinator only: if several nodes drew ids, the ids would not
rise with time.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import asyncpg
import orjson
from sqlalchemy import ARRAY, BigInteger, Boolean, ColumnElement, Dialect, any_, column, literal
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

IDS_OF_SHARD_KEY_BITS = 10
SHARD_KEY = f"factory_log_id >> {IDS_OF_SHARD_KEY_BITS}"
"""SQL for the distribution column. Neighbouring ids have the same key, so a batch is written to one or two shards."""
SESSION = {
    "citus.enable_deadlock_prevention": "off",  # "on" refuses statements on several shards in a transaction
    "citus.multi_shard_modify_mode": "sequential",  # required, because logs refer to repairs, a table on all nodes
    # Hiding shards from catalogs makes the query with which asyncpg looks up a type take seconds.
    "citus.override_table_visibility": "off",
    "plan_cache_mode": "force_custom_plan",  # a generic plan cannot choose shards
}
ONE_SNAPSHOT_OF_EACH_NODE = "SET LOCAL citus.max_adaptive_executor_pool_size TO 1"
"""A snapshot belongs to one connection. With only one connection to each node, all statements of a transaction read a
node's logs in the same snapshot."""
SEQUENCE = "(SELECT pg_get_serial_sequence('factory_logs', 'factory_log_id')::regclass AS name OFFSET 0) AS ids"
"""SQL for the sequence that generates ids, as a table with its name. While `distribute` renames tables, the sequence
briefly has another name."""
NEXT_IDS = f"SELECT nextval(ids.name) FROM generate_series(1, $1::bigint), {SEQUENCE}"  # noqa: S608 - our own text

_HAS_CITUS = "SELECT to_regclass('pg_catalog.pg_dist_partition') IS NOT NULL"
_IS_DISTRIBUTED = """
SELECT EXISTS (SELECT FROM pg_dist_partition WHERE logicalrelid = to_regclass('factory_logs') AND partmethod = 'h')
"""
_NODES = "SELECT count(*) FROM pg_dist_node WHERE noderole = 'primary'"
_PREPARED = """
SELECT nodeid, success, result FROM run_command_on_all_nodes($$
    SELECT coalesce(json_agg(virtualtransaction), '[]') FROM pg_catalog.pg_locks
    WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND pid IS NULL
      AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
      AND relation IN (SELECT oid FROM pg_catalog.pg_class WHERE relname ~ '^factory_logs_(distributed_)?[0-9]+$')
$$)
"""

_NODE_STATES = """
SELECT node.nodename, node.nodeport, coalesce(answer.success, false), coalesce(answer.result, 'it is not active')
FROM pg_dist_node AS node LEFT JOIN run_command_on_all_nodes($$
    SELECT json_build_object(
        'version', current_setting('server_version'), 'has_fsync', current_setting('fsync')::boolean,
        'most_prepared', current_setting('max_prepared_transactions')::int,
        'waits_for_recovery', EXISTS (
            SELECT FROM pg_catalog.pg_prepared_xacts WHERE prepared < now() - interval '1 minute'))
$$) AS answer USING (nodeid)
WHERE node.noderole = 'primary' ORDER BY node.groupid
"""

LOOK_SECONDS = 0.2
NODE_SECONDS = 5
"""How long `node_states` waits until the coordinator has connected to a node."""

Holder = tuple[int, str]
"""The holder of a lock, a prepared transaction: the id of its node, and its virtual transaction id on that node."""


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection to the database that knows whether `factory_logs` was distributed when the connection was opened."""

    is_distributed = False


def is_distributed(connection: asyncpg.Connection) -> bool:
    """Return whether `factory_logs` was distributed when this connection was opened."""
    # asyncpg treats each of its connections as an instance of any subclass.
    return bool(getattr(connection, "is_distributed", False))


async def runs_on_cluster(connection: AsyncConnection) -> bool:
    """Return the result of `is_distributed` for a connection of SQLAlchemy."""
    return is_distributed((await connection.get_raw_connection()).driver_connection)


async def has_citus(connection: asyncpg.Connection, seconds: float | None = None) -> bool:
    """Return whether the extension Citus is installed in the database. Raises TimeoutError after `seconds`."""
    return bool(await connection.fetchval(_HAS_CITUS, timeout=seconds))


async def find_distributed(connection: asyncpg.Connection, seconds: float | None = None) -> bool:
    """Return whether `factory_logs` is distributed now. Raises TimeoutError if a statement takes over `seconds`."""
    if not await has_citus(connection, seconds):
        return False
    return bool(await connection.fetchval(_IS_DISTRIBUTED, timeout=seconds))


def shards_cost(plan: Mapping[str, Any]) -> float:
    """Return the cost of a query of all shards, by its EXPLAIN. The coordinator's own cost does not include the nodes'.

    Citus explains the query of one shard; the others cost as much.
    """
    job = plan["Distributed Query"]["Job"]
    return float(job["Task Count"] * job["Tasks"][0]["Remote Plan"][0][0]["Plan"]["Total Cost"])


def shard_key(factory_log_id: int) -> int:
    """Return the value of the distribution column for the log with this id."""
    return factory_log_id >> IDS_OF_SHARD_KEY_BITS


def shard_keys(factory_log_ids: Iterable[int]) -> list[int]:
    """Return the different values of the distribution column for the logs with these ids."""
    return sorted(set(map(shard_key, factory_log_ids)))


class _InShards(FunctionElement[bool]):
    """A condition on logs, and a condition on their shard key that follows from it. A single server has no shard
    keys, so only a cluster gets the second condition."""

    type = Boolean()
    inherit_cache = True


_KNOWS_SHARDS = "has_distributed_logs"
"""The attribute of a dialect that says whether statements are for a cluster."""


def in_shards(condition: ColumnElement[bool], keys: Any) -> ColumnElement[bool]:
    """Return the condition on logs, which only logs with these shard keys meet. A cluster then queries only their
    shards. `keys` is a list, or a placeholder for one."""
    key: ColumnElement[int] = column("shard_key", BigInteger)
    return _InShards(condition, key == any_(literal(keys, ARRAY(BigInteger))))


def compile_for(dialect: Dialect, *, is_distributed: bool) -> None:
    """Let the dialect compile statements for a cluster, or for a single server."""
    setattr(dialect, _KNOWS_SHARDS, is_distributed)


@compiles(_InShards)
def _compile_in_shards(element: _InShards, compiler: SQLCompiler, **options: Any) -> str:
    condition, shards = element.clauses
    compiled = compiler.process(condition, **options)
    if not getattr(compiler.dialect, _KNOWS_SHARDS, False):
        return compiled
    return f"({compiled} AND {compiler.process(shards, **options)})"


class NodeState(NamedTuple):
    """A node of a cluster, and its settings. If it does not respond, `error` is set and the settings are not known."""

    host: str
    port: int
    error: str = ""
    version: str = ""
    has_fsync: bool = True
    most_prepared: int = 1
    """The setting max_prepared_transactions."""
    waits_for_recovery: bool = False
    """Whether a transaction has been prepared for over a minute."""


async def node_states(connection: asyncpg.Connection) -> list[NodeState]:
    """Return the state of each node, the coordinator's first."""
    await connection.execute(f"SET citus.node_connection_timeout TO '{NODE_SECONDS}s'")
    found = await connection.fetch(_NODE_STATES)
    return [
        NodeState(host, port, **orjson.loads(result)) if success else NodeState(host, port, result)
        for host, port, success, result in found
    ]


async def prepared_writers(connection: asyncpg.Connection) -> frozenset[Holder] | None:
    """Return the prepared transactions that have written logs on any node, or None if a node does not respond.

    Such a transaction is committed or rolled back later, at the latest by Citus' recovery. Until then its logs are
    invisible, although the transaction may have ended on the coordinator.
    """
    found = await connection.fetch(_PREPARED)
    if not all(node["success"] for node in found) or len(found) < await connection.fetchval(_NODES):
        return None
    return frozenset((node["nodeid"], holder) for node in found for holder in orjson.loads(node["result"]))


async def wait_for_prepared_writers(connection: asyncpg.Connection) -> None:
    """Wait until all nodes respond and each prepared transaction that has written logs has ended.

    Transactions that are prepared during the wait are not waited for.
    """
    waiting: frozenset[Holder] | None = None
    while True:
        now = await prepared_writers(connection)
        if now is not None:
            waiting = now if waiting is None else waiting & now
            if not waiting:
                return
        await asyncio.sleep(LOOK_SECONDS)

"""`distribute` on a database with logs, while others write."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import asyncpg
import pytest
import pytest_asyncio
from sqlalchemy import make_url

from factory_logs.db.citus import find_distributed, is_distributed
from factory_logs.db.citus_distribute import CannotDistributeError, Distributor
from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow, Stored
from factory_logs.db.migrations import upgrade
from factory_logs.retention.errors import BusyError
from factory_logs.retention.removal import alone
from factory_logs.settings import Settings
from tests.citus.writers import write
from tests.querier.writers import insert, log

NAME = "distributing"
_NODES = "SELECT groupid, nodename, nodeport FROM pg_dist_node ORDER BY groupid"


@pytest_asyncio.fixture
async def undistributed(cluster: Database, settings: Settings) -> AsyncIterator[Database]:
    """Return another database on the nodes of the cluster, with tables and 2,000 logs that are not distributed."""
    connection = await cluster.connect_raw()
    nodes = await connection.fetch(_NODES)
    urls = {
        node["groupid"]: make_url(cluster.dsn).set(host=node["nodename"], port=node["nodeport"], database=NAME)
        for node in nodes
    }
    await _on_all(urls.values(), "postgres", f"DROP DATABASE IF EXISTS {NAME} WITH (FORCE)", f"CREATE DATABASE {NAME}")
    await _on_all(urls.values(), NAME, "CREATE EXTENSION citus")
    added = [f"SELECT citus_set_coordinator_host('{urls[0].host}', {urls[0].port})"]
    added += [f"SELECT citus_add_node('{url.host}', {url.port})" for group, url in urls.items() if group]
    await _on_all([urls[0]], NAME, *added)
    database = Database(urls[0].render_as_string(hide_password=False), settings)
    await upgrade(database.dsn)
    before = await database.connect_raw()
    await insert(before, [NewRow(log(number), None) for number in range(2000)])
    await before.close()
    yield database
    await database.dispose()
    await _on_all(urls.values(), "postgres", f"DROP DATABASE {NAME} WITH (FORCE)")
    await connection.close()


async def _on_all(urls: object, database: str, *statements: str) -> None:
    for url in urls:  # type: ignore[attr-defined]
        connection = await asyncpg.connect(url.set(database=database).render_as_string(hide_password=False))
        await connection.execute("SET citus.enable_create_database_propagation TO off")
        for statement in statements:
            await connection.execute(statement)
        await connection.close()


async def distribute(database: Database) -> None:
    connection = await database.connect_raw()
    try:
        async for _ in Distributor(connection, shards=4).run():
            pass
    finally:
        await connection.close()


async def ids(database: Database) -> list[int]:
    connection = await database.connect_raw()
    found = [row[0] for row in await connection.fetch("SELECT factory_log_id FROM factory_logs")]
    await connection.close()
    return found


@pytest.mark.slow
async def test_no_acknowledged_log_is_lost_while_logs_are_distributed(undistributed: Database) -> None:
    acknowledged: list[int] = []
    writers = [asyncio.create_task(write(undistributed, acknowledged)) for _ in range(3)]
    await asyncio.sleep(0.5)
    await distribute(undistributed)
    before = len(acknowledged)
    while len(acknowledged) < before + 10:
        await asyncio.sleep(0.05)
    for writer in writers:
        writer.cancel()
    await asyncio.gather(*writers, return_exceptions=True)
    found = await ids(undistributed)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    connection = await undistributed.connect_raw()
    assert is_distributed(connection)
    assert await connection.fetchval("SELECT count(*) FROM factory_logs WHERE shard_key <> factory_log_id >> 10") == 0
    await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["Copying", "Building indexes", "Checking", "Cleaning up"])
async def test_an_interrupted_run_is_continued(undistributed: Database, step: str) -> None:
    before = await ids(undistributed)
    connection = await undistributed.connect_raw()
    async with aclosing(Distributor(connection, shards=4).run()) as progress:
        async for now in progress:
            if now.step == step:
                break
    await connection.close()
    await distribute(undistributed)
    await distribute(undistributed)  # changes nothing
    assert sorted(await ids(undistributed)) == sorted(before)
    connection = await undistributed.connect_raw()
    assert await find_distributed(connection)
    indexes = await connection.fetch("SELECT indexname FROM pg_indexes WHERE tablename = 'factory_logs'")
    assert {row[0] for row in indexes} >= {"factory_logs_pkey", "ix_factory_logs_tags", "ix_factory_logs_timestamp"}
    (stored,) = await insert(connection, [NewRow(log(1), None)])
    assert isinstance(stored, Stored)
    assert stored.factory_log_id == max(before) + 1
    await connection.close()


@pytest.mark.slow
async def test_two_runs_and_retention_exclude_each_other(undistributed: Database) -> None:
    before = await ids(undistributed)
    connection = await undistributed.connect_raw()
    async with aclosing(Distributor(connection, shards=4).run()) as progress:
        await anext(progress)
        with pytest.raises(CannotDistributeError, match="another process"):
            await distribute(undistributed)
        with pytest.raises(BusyError):
            async with alone(undistributed):
                pass
        async for _ in progress:
            pass
    await connection.close()
    assert sorted(await ids(undistributed)) == sorted(before)
    async with alone(undistributed):
        with pytest.raises(CannotDistributeError, match="another process"):
            await distribute(undistributed)
    await distribute(undistributed)

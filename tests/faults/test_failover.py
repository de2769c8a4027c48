"""PostgreSQL's primary is killed and its streaming standby is promoted; one URL names both."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory_logs.db.migrations import upgrade
from factory_logs.embedded.server import DATABASE
from tests.faults.postgres import Cluster
from tests.faults.service import Service
from tests.faults.verdict import judge
from tests.faults.writers import Ledger, Writers

pytestmark = pytest.mark.faults


@pytest.fixture
def pair(short_tmp: Path) -> Iterator[tuple[Cluster, Cluster]]:
    """Start a primary whose commits wait for its standby."""
    primary = Cluster(short_tmp / "primary")
    primary.create()
    primary.start()
    asyncio.run(upgrade(primary.url))
    standby = primary.copy(short_tmp / "standby")
    standby.start()
    asyncio.run(replicate_synchronously(primary))
    yield primary, standby
    standby.remove()
    primary.remove()


async def replicate_synchronously(primary: Cluster) -> None:
    async with primary.connected() as connection, asyncio.timeout(60):
        await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        await connection.execute("SELECT pg_reload_conf()")
        while not await connection.fetchval("SELECT true FROM pg_stat_replication WHERE sync_state = 'sync'"):
            await asyncio.sleep(0.05)


async def test_acknowledged_logs_are_on_the_promoted_standby_and_the_service_reconnects_to_it(
    pair: tuple[Cluster, Cluster], tmp_path: Path
) -> None:
    primary, standby = pair
    hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    url = f"postgresql://{DATABASE}@{hosts}/{DATABASE}?target_session_attrs=read-write"
    service = Service({"FACTORY_LOGS_DATABASE_URL": url, "FACTORY_LOGS_ACCESS_LOG": "0"}, tmp_path / "service.log")
    service.create_user("jig", "SYSTEM")
    token = service.run("tokens", "issue", "jig", "--expires-in", "never")
    service.start()
    service.wait_until_ready()
    ledger = Ledger()
    try:
        with Writers(service.url, token, "failover", ledger) as writers:
            writers.wait_for_acknowledgement()
            await asyncio.to_thread(primary.kill)
            await asyncio.to_thread(standby.promote)
            writers.wait_for_acknowledgement()
    finally:
        service.stop()
    assert ledger.surprises == [], service.errors()
    async with standby.connected() as connection:
        verdict = await judge(connection, ledger.writes)
    verdict.check()
    assert verdict.acknowledged

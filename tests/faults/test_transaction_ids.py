"""PostgreSQL has no more transaction ids, because it cannot vacuum a damaged table: it refuses every write, and reads
work."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from factory_logs.db.migrations import upgrade
from tests.faults.postgres import Cluster
from tests.faults.service import Service

pytestmark = pytest.mark.faults

LAST_ID = 2**31 - 2_000_000
"""PostgreSQL refuses writes from 3 million ids before the oldest one, which is that of a new cluster: close to 0."""
IDS_OF_SEGMENT = 2**20
SEGMENT_BYTES = 256 * 1024
LOG = {"app_name": "jig", "timestamp": "2024-01-31"}
KEY = {"Idempotency-Key": "one"}
WRITES = {
    "log": ("/v1/factory_logs", {"json": LOG}),
    "log with a key": ("/v1/factory_logs", {"json": LOG, "headers": KEY}),
    "batch": ("/v1/factory_logs", {"json": [LOG, LOG]}),
    "point": ("/write?db=x", {"content": "jig f=1"}),
    "points": ("/write?db=x", {"content": "jig f=1\njig f=2"}),
    "repair": ("/v1/repairs", {"json": {"product_imei": "352099001761481"}}),
}


@pytest.fixture
async def worn(short_tmp: Path, tmp_path: Path) -> AsyncIterator[tuple[Service, str]]:
    """Start a service on a server without transaction ids. Yield it with a token."""
    cluster = Cluster(short_tmp / "postgres")
    cluster.create()
    cluster.start()
    await upgrade(cluster.url)
    settings = {"FACTORY_LOGS_DATABASE_URL": cluster.url, "FACTORY_LOGS_ACCESS_LOG": "0"}
    service = Service(settings, tmp_path / "service.log")
    await asyncio.to_thread(service.create_user, "jig", "SYSTEM")
    token = await asyncio.to_thread(service.run, "tokens", "issue", "jig", "--expires-in", "never")
    async with cluster.connected() as connection:
        await connection.execute("CREATE TABLE damaged AS SELECT 1")
        damaged = await connection.fetchval("SELECT pg_relation_filepath('damaged')")
    cluster.stop()
    (cluster.folder / damaged).unlink()
    cluster.reset_log("-x", str(LAST_ID))
    (cluster.folder / "pg_xact" / f"{LAST_ID // IDS_OF_SEGMENT:04X}").write_bytes(bytes(SEGMENT_BYTES))
    cluster.start()
    service.start()
    try:
        await asyncio.to_thread(service.wait_until_ready)
        yield service, token
    finally:
        await asyncio.to_thread(service.stop)
        cluster.remove()


async def test_writes_get_a_503_while_postgresql_has_no_transaction_ids(worn: tuple[Service, str]) -> None:
    service, token = worn
    headers = {"Authorization": f"Token token={token}"}
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60) as client:
        assert (await client.get("/v1/factory_logs")).status_code == 200
        for path, request in WRITES.values():
            response = await client.post(path, **request)  # type: ignore[arg-type]
            assert (response.status_code, "retry-after" in response.headers) == (503, True), response.text

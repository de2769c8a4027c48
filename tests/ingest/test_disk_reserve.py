"""On a nearly full disk, the service refuses new logs before PostgreSQL has to stop; everything else works."""

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from factory_logs import metrics
from factory_logs.db.engine import Database
from factory_logs.ingest import disk_reserve
from factory_logs.ingest.disk_reserve import CLUSTER_VARIABLE, DiskReserve, free_bytes
from factory_logs.permissions import Level
from factory_logs.settings import Settings
from tests.api.conftest import assert_error, client_of, password_hash, tokens, worker  # noqa: F401
from tests.conftest import CITUS_URL

LOG = {"app_name": "tiger", "timestamp": "2024-01-31T13:45:00Z"}
NO_ROOM, ROOM = 0, 2**40


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    (tmp_path / "pg_wal").mkdir()
    return tmp_path


@pytest.fixture
async def nearly_full(
    database: Database, migrated_url: str, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[FastAPI]:
    """Run a worker whose reserve is larger than any disk."""
    monkeypatch.setenv(CLUSTER_VARIABLE, str(cluster))
    async with worker(migrated_url, disk_reserve_bytes=2**62) as app:
        yield app


@pytest.fixture
async def client(nearly_full: FastAPI, tokens: dict[Level, str]) -> AsyncIterator[httpx.AsyncClient]:  # noqa: F811
    async with client_of(nearly_full, tokens[Level.SYSTEM]) as client:
        yield client


@pytest.mark.parametrize(
    "request_",
    [
        {"url": "/v1/factory_logs", "json": LOG},
        {"url": "/v1/factory_logs", "json": [LOG]},
        {
            "url": "/v1/factory_logs",
            "content": b'{"app_name": "tiger"}\n',
            "headers": {"Content-Type": "application/x-ndjson"},
        },
    ],
    ids=["single", "batch", "ndjson"],
)
async def test_new_logs_get_a_503_with_retry_after(client: httpx.AsyncClient, request_: dict[str, Any]) -> None:
    refused = await client.post(**request_)
    assert "nearly full" in str(assert_error(refused, 503)["message"])
    assert refused.headers["retry-after"] == "30"
    assert (await client.post("/write?db=x", content=b"tiger v=1")).status_code == 503
    assert (await client.get("/v1/factory_logs")).json()["num_results"] == 0


async def test_reading_works_and_the_worker_is_ready_with_a_warning(client: httpx.AsyncClient) -> None:
    assert (await client.get("/v1/factory_logs/stats")).status_code == 200
    ready = await client.get("/readyz")
    assert ready.status_code == 200
    assert "nearly full" in ready.json()["warnings"][0]
    assert (await client.post("/v1/repairs", json={"product_imei": "352099001761481"})).status_code == 201


async def test_logs_are_stored_again_when_there_is_room(
    nearly_full: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (await client.post("/v1/factory_logs", json=LOG)).status_code == 503
    monkeypatch.setattr(disk_reserve, "free_bytes", lambda _: {"data": 2**62, "wal": 2**62})
    await nearly_full.state.services.disk.check()
    assert (await client.post("/v1/factory_logs", json=LOG)).status_code == 201
    assert "warnings" not in (await client.get("/readyz")).json()


@pytest.mark.parametrize(
    ("free", "room", "is_low"),
    [
        (1000, NO_ROOM, False),
        (999, NO_ROOM, True),
        (999, 999, True),
        (999, 1000, False),  # retention has freed space inside the table
        (500, 1000, False),
        (499, ROOM, True),
    ],
)
@pytest.mark.parametrize("of", ["data", "wal"])
async def test_the_reserve_is_the_minimum_of_free_space(
    database: Database, settings: Settings, cluster: Path, monkeypatch: pytest.MonkeyPatch,
    free: int, room: int, is_low: bool, of: str,
) -> None:  # fmt: skip
    async def known_room(_: DiskReserve) -> int:
        return room

    monkeypatch.setattr(disk_reserve, "free_bytes", lambda _: {"data": ROOM, "wal": ROOM, of: free})
    monkeypatch.setattr(DiskReserve, "_read_room", known_room)
    disk = DiskReserve(database, settings.model_copy(update={"disk_reserve_bytes": 1000}), cluster)
    await disk.check()
    assert disk.is_low == is_low


async def test_without_a_reserve_or_with_an_own_postgresql_nothing_is_refused(
    database: Database, settings: Settings, cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_reserve, "free_bytes", lambda _: {"data": 0, "wal": 0})
    for changes, folder in (({"disk_reserve_bytes": 0}, cluster), ({"disk_reserve_bytes": 2**62}, None)):
        disk = DiskReserve(database, settings.model_copy(update=changes), folder)
        await disk.check()
        assert not disk.is_low


@pytest.mark.skipif(CITUS_URL is not None, reason="the reserve is for the embedded PostgreSQL, which is no cluster")
async def test_free_space_inside_the_table_counts_and_its_measurement_leaves_no_extension(
    database: Database, settings: Settings, cluster: Path
) -> None:
    disk = DiskReserve(database, settings, cluster)
    connection = await database.connect_raw()
    try:
        await connection.execute(
            "insert into factory_logs (app_name, timestamp) select 'tiger', now() from generate_series(1, 20000)"
        )
        await connection.execute("vacuum factory_logs")
        full = await disk._read_room()
        await connection.execute("delete from factory_logs where factory_log_id < 19000")
        async with asyncio.timeout(60):  # a short transaction of another process may still see the deleted logs
            while await disk._read_room() <= full + 100 * 8192:
                await connection.execute("vacuum factory_logs")
        assert await connection.fetchval("select count(*) from pg_extension where extname = 'pg_freespacemap'") == 0
    finally:
        await connection.close()


async def test_the_free_bytes_are_those_of_the_disk_and_a_metric(client: httpx.AsyncClient, cluster: Path) -> None:
    disk = os.statvfs(cluster)
    assert free_bytes(cluster).keys() == {"data", "wal"}
    assert 0 < free_bytes(cluster)["data"] <= disk.f_blocks * disk.f_frsize
    assert 'factory_logs_disk_free_bytes{of="data"}' in metrics.exposition().decode()


async def test_a_disk_that_cannot_be_read_changes_nothing(
    database: Database, settings: Settings, tmp_path: Path
) -> None:
    disk = DiskReserve(database, settings, tmp_path / "missing")
    await disk.check()
    assert not disk.is_low

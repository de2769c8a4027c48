"""A slow upload uses bounded memory and disk, and no connection or transaction that other clients need."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import zstandard
from fastapi import FastAPI
from sqlalchemy import text

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

RECORD = {"app_name": "slow", "timestamp": "2024-01-31", "fields": {"passed": True}}
RECORDS = 300
NDJSON = b"".join(json.dumps(RECORD | {"tags": {"n": str(n)}}).encode() + b"\n" for n in range(RECORDS))
LINES = b"".join(b"slow,n=%d passed=true %d\n" % (n, n) for n in range(RECORDS))
ARRAY = b"[" + NDJSON.rstrip().replace(b"\n", b",") + b"]"
UPLOADS = {
    "ndjson": ("/v1/factory_logs", "application/x-ndjson", NDJSON),
    "array": ("/v1/factory_logs", "application/json", ARRAY),
    "line protocol": ("/write?db=x", "text/plain", LINES),
    "line protocol 2": ("/api/v2/write?bucket=x", "text/plain", LINES),
}
PACKERS = {"identity": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}
WRITERS = 2
SETTINGS = {
    "batch_part_bytes": 2000,
    "body_memory_bytes": 1000,
    "batch_connections": WRITERS,
    "batch_wait_seconds": 60,  # for the uploads, which run concurrently, perhaps on a busy machine
}
OPEN_TRANSACTIONS = text(
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND xact_start IS NOT NULL"
)


class Upload:
    """An upload that pauses before its last byte until `go_on` is set."""

    def __init__(self, client: httpx.AsyncClient, kind: str, packing: str) -> None:
        path, content_type, body = UPLOADS[kind]
        headers = {"Content-Type": content_type, "Content-Encoding": packing}
        self.is_waiting, self.go_on = asyncio.Event(), asyncio.Event()
        self._body = PACKERS[packing](body)
        self.response = asyncio.create_task(client.post(path, content=self._pieces(), headers=headers))

    async def _pieces(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._body) - 1, 500):
            yield self._body[start : min(start + 500, len(self._body) - 1)]
        self.is_waiting.set()
        await self.go_on.wait()
        yield self._body[-1:]


@asynccontextmanager
async def uploading(app: FastAPI, client: httpx.AsyncClient, kind: str, packing: str) -> AsyncIterator[list[Upload]]:
    """Yield more uploads than there are connections for batches; each lacks only its last byte."""
    uploads = [Upload(client, kind, packing) for _ in range(2 * WRITERS)]
    for upload in uploads:
        await upload.is_waiting.wait()
    if packing == "identity":
        assert app.state.services.bodies.in_files > 0
    try:
        yield uploads
    finally:
        for upload in uploads:
            upload.go_on.set()
        await asyncio.gather(*(upload.response for upload in uploads))


@pytest.fixture
async def app(database: Database, migrated_url: str) -> AsyncIterator[FastAPI]:
    async with worker(migrated_url, **SETTINGS) as app:
        yield app
        bodies = app.state.services.bodies
        assert (bodies.held, bodies.arriving, bodies.in_files) == (0, 0, 0)


@pytest.fixture
async def client(app: FastAPI, tokens: dict[Level, str]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, tokens[Level.SYSTEM]) as client:
        yield client


@pytest.mark.slow
@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize("kind", UPLOADS)
async def test_other_clients_write_and_read_during_slow_uploads(
    app: FastAPI, client: httpx.AsyncClient, database: Database, kind: str, packing: str
) -> None:
    async with uploading(app, client, kind, packing) as uploads:
        for _ in range(2 * WRITERS):
            assert (await client.post("/v1/factory_logs", json=[RECORD])).status_code == 201
        # A transaction of an upload would stay open; a short one of another task may be running.
        async with asyncio.timeout(120), database.connect_reader() as connection:
            while (await connection.execute(OPEN_TRANSACTIONS)).scalar() != 0:
                await asyncio.sleep(0.05)
        first = (await client.get("/v1/factory_logs")).json()["num_results"]
    statuses = {(await upload.response).status_code for upload in uploads}
    assert first == 2 * WRITERS
    assert statuses == ({204} if kind.startswith("line") else {201})
    total = (await client.get("/v1/factory_logs")).json()["num_results"]
    # A repeated write of the same points counts as a retry of an InfluxDB client, so it is stored once.
    assert total == first + RECORDS * (1 if kind.startswith("line") else len(uploads))


@pytest.mark.slow
async def test_the_ids_of_an_upload_are_taken_when_all_of_it_has_arrived(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    """An id that is drawn and not committed hides all later logs from tails."""
    async with uploading(app, client, "ndjson", "identity") as uploads:
        single = (await client.post("/v1/factory_logs", json=RECORD)).json()["factory_log_id"]
    ids = [(await upload.response).json()["first_id"] for upload in uploads]
    assert single < min(ids)


async def test_an_aborted_upload_leaves_nothing(app: FastAPI, client: httpx.AsyncClient) -> None:
    async with uploading(app, client, "ndjson", "identity") as uploads:
        for upload in uploads:
            upload.response.cancel()
        await asyncio.gather(*(upload.response for upload in uploads), return_exceptions=True)
        uploads.clear()
    assert app.state.services.bodies.in_files == 0
    assert (await client.get("/v1/factory_logs")).json()["num_results"] == 0


@pytest.mark.parametrize(("room", "status"), [(len(NDJSON), 201), (len(NDJSON) - 1, 503)])
async def test_an_upload_over_the_memory_budget_gets_a_503(
    database: Database, tokens: dict[Level, str], migrated_url: str, room: int, status: int
) -> None:
    settings = {"body_memory_bytes": 1, "max_body_files_bytes": room}
    headers = {"Content-Type": "application/x-ndjson"}
    async with worker(migrated_url, **settings) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        response = await client.post("/v1/factory_logs", content=NDJSON, headers=headers)
        assert response.status_code == status, response.text
        assert app.state.services.bodies.in_files == 0

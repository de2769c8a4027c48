"""A long NDJSON body waits in a file and is stored in parts, so memory holds only a few parts
(docs/reference/http-api.md#writing)."""

import json
import tracemalloc
from collections.abc import AsyncIterator

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

pytestmark = pytest.mark.slow

PART = 64 * 1024
PARTS = 300
LINE = (
    json.dumps({"app_name": "a", "timestamp": 0, "fields": {"number": 1.5, "text": "x" * (PART // 16)}}) + "\n"
).encode()


async def pieces(parts: int) -> AsyncIterator[bytes]:
    for _ in range(parts * PART // len(LINE)):
        yield LINE


async def peak_of(client: httpx.AsyncClient, parts: int) -> int:
    """Return the peak of Python's memory while a body of so many parts is stored."""
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    response = await client.post(
        "/v1/factory_logs", content=pieces(parts), headers={"Content-Type": "application/x-ndjson"}
    )
    assert response.json()["num_created"] == parts * PART // len(LINE)
    return tracemalloc.get_traced_memory()[1] - before


async def test_a_long_body_takes_no_more_memory_than_a_short_one(
    database: Database, tokens: dict[Level, str], migrated_url: str
) -> None:
    async with (
        worker(migrated_url, batch_part_bytes=PART, body_memory_bytes=PART, max_body_bytes=2 * PARTS * PART) as app,
        client_of(app, tokens[Level.SYSTEM]) as client,
    ):
        tracemalloc.start()
        try:
            await peak_of(client, 4)
            peak = await peak_of(client, PARTS)
        finally:
            tracemalloc.stop()
    assert peak < PARTS * PART / 10

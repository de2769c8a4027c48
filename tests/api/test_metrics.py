"""Monitoring for operators: /metrics, /healthz and /readyz."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text

from factory_logs import metrics
from factory_logs.api.services import Services
from factory_logs.db import migrations
from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker
from tests.serving import free_port, serving

OPERATING = Path(__file__).parents[2] / "docs" / "how-to" / "operating.md"
LOG = {"app_name": "tiger", "timestamp": "2024-01-31"}
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(exposition: str) -> Samples:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found.get((f"factory_logs_{name}", frozenset(labels.items())), 0.0)


class Watched:
    """The metrics since its creation, because all tests of a process share the counters."""

    def __init__(self, client: httpx.AsyncClient, before: Samples) -> None:
        self._client = client
        self._before = before

    async def added(self, name: str, **labels: str) -> float:
        now = samples((await self._client.get("/metrics")).text)
        return value(now, name, **labels) - value(self._before, name, **labels)


@pytest.fixture
async def watched(client: httpx.AsyncClient) -> Watched:
    return Watched(client, samples((await client.get("/metrics")).text))


async def test_metrics_are_prometheus_text_and_need_no_token(app: FastAPI) -> None:
    async with client_of(app, None) as client:
        response = await client.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert samples(response.text)


async def test_requests_and_their_time_are_counted_by_route_not_by_path(
    client: httpx.AsyncClient, watched: Watched
) -> None:
    log_id = (await client.post("/v1/factory_logs", json=LOG)).json()["factory_log_id"]
    for path in (f"/v1/factory_logs/{log_id}", "/v1/factory_logs/999999", "/nowhere", "/v1/repairs"):
        await client.get(path)
    await client.request("BREW", "/v1/repairs")
    one = "/v1/factory_logs/{factory_log_id}"
    assert await watched.added("requests_total", method="POST", route="/v1/factory_logs", status="201") == 1
    assert await watched.added("requests_total", method="GET", route=one, status="200") == 1
    assert await watched.added("requests_total", method="GET", route=one, status="404") == 1
    assert await watched.added("requests_total", method="GET", route="unmatched", status="404") == 1
    assert await watched.added("requests_total", method="GET", route="/v1/repairs", status="200") == 1
    assert await watched.added("request_seconds_count", method="GET", route=one) == 2
    assert await watched.added("request_seconds_bucket", method="GET", route=one, le="+Inf") == 2
    assert await watched.added("request_seconds_sum", method="GET", route=one) > 0
    exposition = (await client.get("/metrics")).text
    for kept_for_ever in ("/v1/factory_logs/999999", "/nowhere", "BREW"):
        assert kept_for_ever not in exposition


async def test_commits_are_counted_with_their_logs_and_time(client: httpx.AsyncClient, watched: Watched) -> None:
    await client.post("/v1/factory_logs", json=LOG)
    await client.post("/v1/factory_logs", json=[LOG] * 150)
    for by, logs in {"single": 1, "batch": 150}.items():
        assert await watched.added("stored_total", by=by) == logs
        assert await watched.added("commit_rows_count", by=by) == 1
        assert await watched.added("commit_rows_sum", by=by) == logs
        assert await watched.added("commit_seconds_count", by=by) == 1
        assert await watched.added("commit_seconds_sum", by=by) > 0
    assert await watched.added("commit_rows_bucket", by="batch", le="100.0") == 0
    assert await watched.added("commit_rows_bucket", by="batch", le="200.0") == 1


async def test_refused_requests_are_counted_by_reason(
    app: FastAPI, client: httpx.AsyncClient, watched: Watched
) -> None:
    await client.post("/v1/factory_logs", json={})
    await client.post("/write", content=b"m f=1")
    await client.get("/v1/factory_logs/999999")
    async with client_of(app, "x" * 64) as stranger:
        await stranger.get("/v1/factory_logs")
        await stranger.post("/write?db=x", content=b"m f=1")
    for reason, count in {"BadRequest": 2, "NotFound": 1, "Unauthenticated": 2}.items():
        assert await watched.added("rejected_total", reason=reason) == count


async def test_skipped_logs_of_a_write_are_counted(client: httpx.AsyncClient, watched: Watched) -> None:
    await client.post("/v1/factory_logs?on_error=skip", json=[LOG, {}, {}])
    await client.post("/write?db=x", content=b"m f=1 1\nm f=\nm f=2 2")
    await client.post("/write?db=x", content=b"m f=")
    assert await watched.added("left_out_total", by="batch") == 2
    assert await watched.added("left_out_total", by="influx") == 2


@pytest.mark.slow
async def test_gauges_show_waiting_logs_and_held_memory(
    app: FastAPI, client: httpx.AsyncClient, database: Database
) -> None:
    services: Services = app.state.services
    assert await shown(client, "queued_logs", lambda logs: logs == 0)
    services.bodies.take(12_345)
    async with database.begin() as connection:
        await connection.execute(text("lock table factory_logs in exclusive mode"))
        writes: list[asyncio.Task[httpx.Response]] = []
        for _ in range(10):  # the first logs have already left the queue for the table
            writes.append(asyncio.create_task(client.post("/v1/factory_logs", json=LOG)))
            await asyncio.sleep(0.05)
        assert await shown(client, "queued_logs", lambda logs: 0 < logs < 10)
        assert await shown(client, "queued_bytes", lambda size: size > 10)
        assert await shown(client, "body_bytes", lambda size: size >= 12_345)
    await asyncio.gather(*writes)
    services.bodies.give_back(12_345)
    for name in ("queued_logs", "queued_bytes", "body_bytes"):
        assert await shown(client, name, lambda amount: amount == 0)


async def shown(client: httpx.AsyncClient, name: str, is_right: Callable[[float], bool]) -> bool:
    """Wait until the gauge is right; the service updates gauges once a second."""
    async with asyncio.timeout(60):
        while not is_right(value(samples((await client.get("/metrics")).text), name)):
            await asyncio.sleep(0.1)
    return True


@pytest.mark.slow
async def test_all_workers_are_counted_whichever_responds(
    database: Database, migrated_url: str, tokens: dict[Level, str], tmp_path: Path
) -> None:
    port, output = free_port(), tmp_path / "serve.log"
    url, headers = f"http://127.0.0.1:{port}", {"Authorization": f"Token token={tokens[Level.SYSTEM]}"}

    def write(_: int) -> int:
        """Each request has its own connection, which any worker may accept."""
        return httpx.post(f"{url}/v1/factory_logs", json=LOG, headers=headers, timeout=60).status_code

    with serving({"FACTORY_LOGS_DATABASE_URL": migrated_url}, port, output, workers=2):
        with ThreadPoolExecutor(8) as threads:
            assert set(threads.map(write, range(60))) == {201}
        responses = [samples(httpx.get(f"{url}/metrics", timeout=60).text) for _ in range(6)]
    for found in responses:
        assert value(found, "requests_total", method="POST", route="/v1/factory_logs", status="201") == 60
        assert value(found, "request_seconds_count", method="POST", route="/v1/factory_logs") == 60
        assert value(found, "stored_total", by="single") == 60
        assert value(found, "commit_rows_sum", by="single") == 60
        assert ("factory_logs_queued_logs", frozenset()) in found


def test_the_page_for_operators_lists_every_metric() -> None:
    documented = set(re.findall(r"^\| `(factory_logs_\w+)`", OPERATING.read_text(), re.MULTILINE))
    families = text_string_to_metric_families(metrics.exposition().decode())
    assert documented == {
        family.name + ("_total" if family.type == "counter" else "")
        for family in families
        if family.name.startswith("factory_logs_") and not family.name.endswith("_created")
    }


@pytest.mark.slow
async def test_a_gauge_shows_that_postgresql_does_not_respond(monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[bool] = []  # of this worker, and of the module's, which sets the same gauge to True
    monkeypatch.setattr(metrics.DATABASE_UP, "set", values.append)
    async with worker("postgresql://nobody@127.0.0.1:1/none"), asyncio.timeout(120):
        while False not in values:
            await asyncio.sleep(0.1)


@pytest.mark.slow
async def test_a_gauge_shows_that_postgresql_responds(app: FastAPI) -> None:
    metrics.DATABASE_UP.set(0)
    async with client_of(app, None) as client, asyncio.timeout(120):
        while value(samples((await client.get("/metrics")).text), "database_up") != 1:
            await asyncio.sleep(0.1)


# Health


async def test_a_worker_is_alive_and_ready(app: FastAPI) -> None:
    async with client_of(app, None) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        ready = await client.get("/readyz")
        assert (ready.status_code, ready.json()) == (200, {"status": "ok", "migration": migrations.head()})


async def test_without_the_database_a_worker_is_alive_and_not_ready(database: Database) -> None:
    async with worker("postgresql://nobody@127.0.0.1:1/none") as app, client_of(app, None) as client:
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
        assert ready.status_code == 503
        assert int(ready.headers["retry-after"]) > 0
        assert "cannot be reached" in ready.json()["message"]


async def test_with_migrations_that_are_not_current_a_worker_is_not_ready(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrations, "head", lambda: "9999")
    async with client_of(app, None) as client:
        ready = await client.get("/readyz")
        assert (ready.status_code, (await client.get("/healthz")).status_code) == (503, 200)
        assert "run factory-logs migrate" in ready.json()["message"]

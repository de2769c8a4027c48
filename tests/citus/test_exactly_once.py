"""Each acknowledged write is stored exactly once, even if a worker node crashes."""

import asyncio
import random
from collections import Counter

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker
from tests.citus.crashes import crash_workers, recovered

SENDERS = 6


class Senders:
    """Send logs and batches with keys, each again and again until it is acknowledged."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self.acknowledged: list[str] = []
        self.refusals: Counter[int] = Counter()

    async def send(self, sender: int) -> None:
        number = 0
        while True:
            names = [f"{sender}-{number}-{part}" for part in range(1 if number % 2 else 20)]
            logs = [{"app_name": "cit", "timestamp": "2024-01-31", "tags": {"name": name}} for name in names]
            while (response := await self._post(logs, f"{sender}-{number}")).status_code != 201:
                self.refusals[response.status_code] += 1
                await asyncio.sleep(0.1)
            self.acknowledged += names
            number += 1

    async def _post(self, logs: list[dict[str, object]], key: str) -> httpx.Response:
        body = logs[0] if len(logs) == 1 else logs
        return await self._client.post("/v1/factory_logs", json=body, headers={"Idempotency-Key": key})


@pytest.mark.slow
async def test_each_acknowledged_log_is_stored_once_when_worker_nodes_crash(
    cluster: Database, migrated_url: str, tokens: dict[Level, str], seconds: float
) -> None:
    async with worker(migrated_url, access_log=False) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        senders = Senders(client)
        tasks = [senders.send(number) for number in range(SENDERS)]
        crashes = await crash_workers(cluster, seconds, tasks, random.Random(18))
    connection = await recovered(cluster)
    stored = Counter(
        {
            row[0]: row[1]
            for row in await connection.fetch("SELECT tags->>'name', count(*) FROM factory_logs GROUP BY 1")
        }
    )
    await connection.close()
    lost = [name for name in senders.acknowledged if not stored[name]]
    twice = [name for name, logs in stored.items() if logs > 1]
    print(f"{crashes} crashes, {len(senders.acknowledged)} acknowledged, refused {dict(senders.refusals)}")
    assert crashes > 2
    assert (lost, twice) == ([], [])
    assert set(senders.refusals) <= {503}

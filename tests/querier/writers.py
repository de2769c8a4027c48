"""All kinds of writers that run while counts and sums are compared, and a wait for cached counts."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from factory_logs.db.citus import is_distributed
from factory_logs.db.citus_inserts import insert_logs_on_cluster
from factory_logs.db.engine import Database
from factory_logs.db.json_and_csv import json_text
from factory_logs.db.log_inserts import NewRow, Outcome, insert_logs
from factory_logs.db.retention import LOGS, START, bring_back, remove_batch, remove_logs
from factory_logs.ingest.validation import NewLog

DAY = datetime(2024, 1, 1)
APPS = ("cit", "tiger", "koala")
NAME = "test writer"
QUERIES: list[dict[str, Any]] = [
    {},
    {"filters": [{"name": "app_name", "op": "==", "val": "cit"}]},
    {"filters": [{"name": "timestamp", "op": ">=", "val": "2024-01-01T12:00:00"}]},
    {"filters": [{"name": "tags__n", "op": "<", "val": 3}, {"name": "app_name", "op": "!=", "val": "koala"}]},
    {"filters": [{"name": "app_name", "op": "!=", "val": "koala"}, {"name": "tags__n", "op": "<", "val": 3}]},
    {"filters": [{"name": "repair__process", "op": "has", "val": "Replaced"}]},
    {"filters": [{"not": {"name": "repair", "op": "has", "val": {"name": "process", "op": "==", "val": "Replaced"}}}]},
    {"filters": [{"name": "factory_log_id", "op": "<=", "val": 300}]},
    {"filters": [{"name": "app_name", "op": "in", "val": []}]},
    {"offset": 40},
    {"limit": 60},
    {"limit": 60, "offset": 50, "filters": [{"name": "app_name", "op": "==", "val": "tiger"}]},
    {"group_by": [{"field": "app_name"}]},
]
"""Queries whose counts are compared."""


def log(number: int, repair_id: int | None = None) -> NewLog:
    moment = DAY + timedelta(minutes=number % 1440)
    return NewLog(APPS[number % 3], None, repair_id, moment, json.dumps({"n": number % 7}), None)


async def insert(connection: asyncpg.Connection, rows: Sequence[NewRow]) -> list[Outcome]:
    """Store the rows as the group commit does."""
    return await (insert_logs_on_cluster if is_distributed(connection) else insert_logs)(connection, rows)


class Writers:
    """Run all kinds of writers: single logs and batches, of which some fail and some take long; repairs; retention."""

    def __init__(self, database: Database, seed: int) -> None:
        self._database = database
        self._random = random.Random(seed)
        self._repairs = [1]

    async def run(self, writer: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        connection = await self._database.connect_raw()
        await connection.execute(f"set synchronous_commit to off; set application_name to '{NAME}'")
        try:
            while True:
                await writer(connection)
                await asyncio.sleep(self._random.random() * 0.02)
        finally:
            connection.terminate()

    def _logs(self, most: int) -> list[NewRow]:
        return [
            NewRow(log(self._random.randrange(10_000), self._random.choice([None, *self._repairs])), None)
            for _ in range(self._random.randint(1, most))
        ]

    async def singles(self, connection: asyncpg.Connection) -> None:
        await insert(connection, self._logs(3))

    async def batches(self, connection: asyncpg.Connection) -> None:
        """Draw ids, let other writers draw higher ids, and then commit or roll back."""
        transaction = connection.transaction()
        await transaction.start()
        for _ in range(self._random.randint(1, 3)):
            await insert(connection, self._logs(5))
            await asyncio.sleep(self._random.choice([0, 0, 0.002, 0.05]))
        await (transaction.rollback() if self._random.random() < 0.3 else transaction.commit())

    async def repairs(self, connection: asyncpg.Connection) -> None:
        process = self._random.choice(["Replaced", "Repossessed"])
        add = "insert into repairs (product_imei, process) values ('352099001761481', $1) returning repair_id"
        async with connection.transaction():
            repair_id = await connection.fetchval(add, process)
            await insert(connection, [NewRow(log(1, repair_id), None)])
        self._repairs = [*self._repairs[-5:], repair_id]
        await asyncio.sleep(0.02)

    async def retention(self, connection: asyncpg.Connection) -> None:
        cutoff = DAY + timedelta(minutes=self._random.randrange(1440))
        removal = START
        for _ in range(self._random.randint(1, 3)):
            removal = await remove_batch(connection, cutoff, 7, removal)
        await asyncio.sleep(self._random.choice([0.02, 0.2]))
        if self._random.random() < 0.5:
            ids, lines = await archived(connection, 7)
            await remove_logs(connection, ids, cutoff, START)
            await asyncio.sleep(self._random.choice([0.02, 0.2]))
            await bring_back(connection, lines, START)


async def archived(connection: asyncpg.Connection, most: int) -> tuple[list[int], list[str]]:
    """Return the ids of the oldest logs, and their lines in an archive."""
    found = f"select factory_log_id, {json_text(LOGS)} from factory_logs order by timestamp limit $1"
    rows = await connection.fetch(found, most)
    return [row[0] for row in rows], [row[1] for row in rows]


async def run_sql(database: Database, *statements: str) -> None:
    async with database.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))


async def until_all_have_ended(database: Database) -> None:
    """Wait until PostgreSQL has closed the connections of cancelled writers: it may still run what they have sent."""
    async with database.connect_reader() as connection:
        for _ in range(1000):
            running = f"select count(*) from pg_stat_activity where application_name = '{NAME}'"
            if not await connection.scalar(text(running)):
                return
            await asyncio.sleep(0.02)
    pytest.fail("a connection of a writer was not closed")


async def until_kept(database: Database, counts: int, up_to: int = 0) -> None:
    """Wait until there are so many stored counts, all of them of the logs up to this id at least."""
    stored = text("select count(*), coalesce(min(up_to), 0) from known_counts")
    for _ in range(200):
        async with database.connect() as connection:
            kept, lowest = (await connection.execute(stored)).one()
            if kept == counts and lowest >= up_to:
                return
        await asyncio.sleep(0.02)
    pytest.fail(f"there never were {counts} kept counts")

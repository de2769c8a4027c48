"""Storing batches whose connection breaks, and rows whose keys were used before."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
import uvloop

from factory_logs.db.connecting import connect_once
from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import FirstResponse, NewRow, Stored, copy_logs, insert_logs
from factory_logs.db.users import UserRepository
from factory_logs.ingest.idempotency import WriteKey
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import parse_log
from factory_logs.permissions import Level
from factory_logs.schemas.record_limits import RecordLimits

SECONDS = 60
LOGS = 500
TEXT = '{"app_name": "big", "timestamp": "2024-01-31", "fields": {"text": "%s"}}' % ("x" * 10_000)
"""A text for each log. All texts together exceed the buffer of a socket."""


async def copy_and_lose_the_connection(url: str) -> None:
    logs = NewLogs.of([parse_log(TEXT.encode(), RecordLimits(256 * 1024, 32))] * LOGS)
    writer, other = await connect_once(url, 10), await connect_once(url, 10)
    async with asyncio.timeout(SECONDS), other.transaction():
        # PostgreSQL waits before it reads the first row.
        await other.execute("LOCK TABLE factory_logs IN SHARE MODE")
        copying = asyncio.create_task(copy_logs(writer, logs, None))
        pid = writer.get_server_pid()
        while not await other.fetchval("SELECT cardinality(pg_blocking_pids($1)) > 0", pid):
            await asyncio.sleep(0.01)
        await other.execute("SELECT pg_terminate_backend($1::int)", pid)
        with pytest.raises(asyncpg.PostgresConnectionError):
            await copying
    await other.close()


async def test_the_first_responses_of_many_used_keys_are_found_by_one_statement(
    database: Database, migrated_url: str
) -> None:
    """Otherwise a slow link to PostgreSQL could make a commit of used keys exceed its time limit."""
    users = [await UserRepository(database).create(name, name, None, Level.TECHNICAL) for name in ("ann", "bob")]
    log = parse_log(b'{"app_name": "tiger", "timestamp": "2024-01-31"}', RecordLimits(1024, 32))
    keys = [WriteKey(user.user_id, f"key {number}", b"x" * 32) for number in range(50) for user in users]
    rows = [NewRow(log, None, key) for key in keys]
    connection = await connect_once(migrated_url, 10)
    first = await insert_logs(connection, rows)
    statements: list[str] = []
    connection.add_query_logger(lambda query: statements.append(query.query))
    again = await insert_logs(connection, [NewRow(log, None), *reversed(rows)])
    await connection.close()
    assert isinstance(again[0], Stored)
    assert [each.factory_log_id for each in again[1:] if isinstance(each, FirstResponse)] == [
        each.factory_log_id for each in reversed(first) if isinstance(each, Stored)
    ]
    assert len(again) == len(rows) + 1
    assert len(statements) == 2


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_batch_fails_at_once_if_its_connection_is_lost_before_its_logs_are_sent(
    migrated_url: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(copy_and_lose_the_connection(migrated_url))

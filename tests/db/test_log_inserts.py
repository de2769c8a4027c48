"""Storing batches whose connection breaks."""

import asyncio
from collections.abc import Callable

import asyncpg
import pytest
import uvloop

from factory_logs.db.connecting import connect_once
from factory_logs.db.log_inserts import copy_logs
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import parse_log
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


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_batch_fails_at_once_if_its_connection_is_lost_before_its_logs_are_sent(
    migrated_url: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(copy_and_lose_the_connection(migrated_url))

"""Database failures during an import."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator

import asyncpg
import pytest

CUT_AT_COMMIT = """
create function cut() returns trigger language plpgsql as
    $$ begin perform pg_terminate_backend(pg_backend_pid()); return null; end $$;
create constraint trigger cut after insert on imports deferrable initially deferred for each row execute function cut();
"""


@contextlib.contextmanager
def connections_cut_at_commit(url: str) -> Iterator[None]:
    async def execute(sql: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(sql)
        await connection.close()

    asyncio.run(execute(CUT_AT_COMMIT))
    try:
        yield
    finally:
        asyncio.run(execute("drop trigger cut on imports; drop function cut()"))


@contextlib.contextmanager
def table_locked(url: str) -> Iterator[Callable[[], None]]:
    """Block all writes; yield a function that waits until an import tries to write."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url))

    def waiting() -> None:
        sql = "select count(*) from pg_locks where not granted"
        for _ in range(3000):
            if loop.run_until_complete(connection.fetchval(sql)):
                return
            time.sleep(0.1)
        pytest.fail("nobody waits for the table")

    loop.run_until_complete(connection.execute("begin; lock table factory_logs in exclusive mode"))
    try:
        yield waiting
    finally:
        loop.run_until_complete(connection.close())
        loop.close()

"""Database failures during an import."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from factory_logs.db import imports
from factory_logs.db.engine import Database

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


WAIT_AFTER = """
create function wait() returns trigger language plpgsql as $$ begin
    if (select count(*) from imports) >= {parts} then perform pg_advisory_xact_lock(1); end if;
    return new;
end $$;
create trigger wait before insert on imports for each row execute function wait();
select pg_advisory_lock(1);
"""


@contextlib.contextmanager
def import_waits_after(url: str, parts: int) -> Iterator[Callable[[], None]]:
    """Let an import store this many parts and wait in the next one until the end of the block; yield a function that
    waits until it does."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url))
    loop.run_until_complete(connection.execute(WAIT_AFTER.format(parts=parts)))
    try:
        yield lambda: _wait_for_a_lock(loop, connection)
    finally:
        loop.run_until_complete(connection.execute("select pg_advisory_unlock(1)"))
        # It waits until the transaction of a killed import has ended.
        loop.run_until_complete(connection.execute("drop trigger wait on imports; drop function wait()"))
        loop.run_until_complete(connection.close())
        loop.close()


def _wait_for_a_lock(loop: asyncio.AbstractEventLoop, connection: asyncpg.Connection) -> None:
    deadline = time.monotonic() + 300
    while not loop.run_until_complete(connection.fetchval("select count(*) from pg_locks where not granted")):
        assert time.monotonic() < deadline, "no statement waits for a lock"
        time.sleep(0.05)


@contextlib.contextmanager
def table_locked(url: str) -> Iterator[Callable[[], None]]:
    """Block all writes; yield a function that waits until an import tries to write."""
    loop = asyncio.new_event_loop()
    connection = loop.run_until_complete(asyncpg.connect(url))

    loop.run_until_complete(connection.execute("begin; lock table factory_logs in exclusive mode"))
    try:
        yield lambda: _wait_for_a_lock(loop, connection)
    finally:
        loop.run_until_complete(connection.close())
        loop.close()


def changed_after_the_first_read(patch: pytest.MonkeyPatch, file: Path, text: str) -> None:
    """Let the file contain this text after an import has read it for its fingerprint."""
    done_parts = imports.done_parts

    async def change(database: Database, source: bytes) -> Mapping[int, tuple[int, int]]:
        file.write_text(text)
        return await done_parts(database, source)

    patch.setattr(imports, "done_parts", change)

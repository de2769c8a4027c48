"""The background tasks of a worker."""

import asyncio
from functools import partial

import asyncpg
import pytest
from structlog.testing import capture_logs

from factory_logs import app as module
from factory_logs.app import purge_regularly
from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository
from factory_logs.db.users import UserRepository
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.settings import default
from tests.api.conftest import worker

FAIL = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
AS $$BEGIN RAISE EXCEPTION 'unforeseen' USING ERRCODE = 'XX000'; END$$;
CREATE TRIGGER refuse BEFORE DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION refuse();
"""
OLD = {
    "idempotency_keys": "INSERT INTO idempotency_keys (user_id, key, fingerprint, status, created_at) "
    "VALUES (1, 'old', '', 201, '2001-01-01')",
    "tokens": "INSERT INTO tokens (token_hash, user_id, revoked_at) VALUES ('\\x00', 1, '2001-01-01')",
}


@pytest.mark.parametrize("table", OLD)
async def test_a_background_task_continues_after_an_unexpected_error(
    database: Database, migrated_url: str, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.01)
    monkeypatch.setattr(module, "PURGE_KEYS_SECONDS", 0.01)
    monkeypatch.setattr(module, "PURGE_TOKENS_SECONDS", 0.01)
    connection = await asyncpg.connect(migrated_url)
    await connection.execute("INSERT INTO users (username, display_name, permission) VALUES ('a', 'A', 'SYSTEM')")
    await connection.execute(OLD[table])
    await connection.execute(FAIL.format(table=table))
    try:
        with capture_logs() as lines:
            async with worker(migrated_url), asyncio.timeout(60):
                while not any(line["event"].startswith("a background task failed") for line in lines):
                    await asyncio.sleep(0.01)
                assert await connection.fetchval(f"SELECT count(*) FROM {table}") == 1
                await connection.execute(f"DROP TRIGGER refuse ON {table}")
                while await connection.fetchval(f"SELECT count(*) FROM {table}"):
                    await asyncio.sleep(0.01)
    finally:
        await connection.execute("DROP FUNCTION refuse CASCADE")
        await connection.close()


async def test_it_deletes_ended_tokens_repeatedly(database: Database) -> None:
    user = await UserRepository(database).create("ann", "Ann", None, "SYSTEM")
    tokens = TokenRepository(database)
    loop = asyncio.create_task(purge_regularly("ended tokens", 0.01, partial(tokens.purge, 0)))
    try:
        for token_hash in (b"a" * 32, b"b" * 32):
            await tokens.issue(token_hash, user.user_id, expires_at=None)
            await tokens.revoke(token_hash)
            async with asyncio.timeout(60):
                while await tokens.list():
                    await asyncio.sleep(0.01)
    finally:
        loop.cancel()


async def test_it_continues_after_a_database_error_and_logs_both() -> None:
    results = iter([DatabaseUnavailableError("The database is away"), 0, 3])
    ended = asyncio.Event()

    async def purge() -> int:
        result = next(results, None)
        if result is None:
            ended.set()
            return 0
        if isinstance(result, DatabaseUnavailableError):
            raise result
        return result

    with capture_logs() as lines:
        loop = asyncio.create_task(purge_regularly("keys", 0.001, purge))
        await asyncio.wait_for(ended.wait(), 60)
        loop.cancel()
    assert lines == [
        {
            "event": "expired rows could not be deleted",
            "rows": "keys",
            "reason": "The database is away",
            "log_level": "warning",
        },
        {"event": "rows purged", "rows": "keys", "deleted": 3, "log_level": "info"},
    ]


async def test_the_catalog_is_kept_up_in_the_background_unless_a_setting_turns_it_off(migrated_url: str) -> None:
    for seconds, is_kept_up in ((default("catalog_seconds"), True), (0.0, False)):
        async with worker(migrated_url, catalog_seconds=seconds):
            assert ("catalog" in {task.get_name() for task in asyncio.all_tasks()}) == is_kept_up

import asyncio
import contextlib

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository
from factory_logs.db.users import UserRepository
from factory_logs.security import ended_tokens


async def test_ended_tokens_are_forgotten_while_the_service_runs(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await UserRepository(database).create("ann", "Ann", None, "SYSTEM")
    tokens = TokenRepository(database)
    await tokens.issue(b"a" * 32, user.user_id, expires_at=None)
    await tokens.revoke(b"a" * 32)
    forgotten = asyncio.Event()
    purge = TokenRepository.purge

    async def noted(self: TokenRepository, keep_seconds: float) -> int:
        count = await purge(self, keep_seconds)
        if count:
            forgotten.set()
        return count

    monkeypatch.setattr(TokenRepository, "purge", noted)
    monkeypatch.setattr(ended_tokens, "FORGET_EVERY_SECONDS", 0.01)
    chore = asyncio.create_task(ended_tokens.forget_ended_tokens(database, 0))
    await asyncio.wait_for(forgotten.wait(), 10)
    chore.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await chore

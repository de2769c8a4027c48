"""Issuing tokens: the only place that holds a new token's text together with its row."""

from dataclasses import dataclass
from datetime import datetime

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository
from factory_logs.security.tokens import hash_token, new_token


@dataclass(frozen=True, slots=True)
class SlidingToken:
    """A new token's text, which cannot be read again, and its end as of now (UTC without zone)."""

    token: str
    expires_at: datetime


async def issue_token(database: Database, user_id: int, *, expires_at: datetime | None) -> str:
    """A token that ends at `expires_at` (UTC without zone), or never. Raises DatabaseUnavailableError."""
    token = new_token()
    await TokenRepository(database).issue(hash_token(token), user_id, expires_at=expires_at)
    return token


async def issue_sliding_token(database: Database, user_id: int, *, idle_seconds: int) -> SlidingToken:
    """A token that ends `idle_seconds` after its last use. Raises DatabaseUnavailableError."""
    token = new_token()
    repository = TokenRepository(database)
    return SlidingToken(token, await repository.issue_sliding(hash_token(token), user_id, idle_seconds=idle_seconds))

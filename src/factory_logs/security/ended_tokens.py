"""Rows of tokens that have ended are kept for a while, to answer whose a token was, and then forgotten."""

import asyncio
import random

import structlog

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository
from factory_logs.errors import DatabaseUnavailableError

FORGET_EVERY_SECONDS = 3600.0

_log = structlog.get_logger(__name__)


async def forget_ended_tokens(database: Database, keep_seconds: float) -> None:
    """About every hour, for ever. Workers do so at different times; a database that is away is tried again later."""
    tokens = TokenRepository(database)
    while True:
        await asyncio.sleep(FORGET_EVERY_SECONDS * random.uniform(0.5, 1.5))  # noqa: S311 - no secret
        try:
            forgotten = await tokens.purge(keep_seconds)
        except DatabaseUnavailableError as error:
            _log.warning("ended tokens are not forgotten yet", reason=error.message)
        else:
            _log.info("ended tokens forgotten", tokens=forgotten)

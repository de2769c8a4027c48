import asyncio
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import asyncpg
import pytest
import typer.main
from typer.testing import CliRunner, Result

from factory_logs.cli import app
from factory_logs.db.engine import Database

Run = Callable[..., Result]
Query = Callable[[str], list[dict[str, Any]]]


@pytest.fixture(scope="session", autouse=True)
def _one_command() -> Iterator[None]:
    """Build the command with all its options once, not for each run: that would take longer than most commands."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("typer.testing._get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture
def run(database: Database, migrated_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs `factory-logs <arguments>` on an empty database."""
    monkeypatch.setenv("FACTORY_LOGS_DATABASE_URL", migrated_url)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | os.PathLike[str], stdin: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run


@pytest.fixture
def query(migrated_url: str) -> Query:
    async def fetch(sql: str) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(migrated_url)
        try:
            return [dict(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()

    return lambda sql: asyncio.run(fetch(sql))

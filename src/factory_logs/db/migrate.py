"""Bring the database's tables to this version of the program, with Alembic. Safe to call from every worker."""

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

import factory_logs
from factory_logs.db.engine import Database, translate_errors


def scripts() -> Path:
    """The folder of the migrations: in the wheel beside the package's modules, in a checkout `alembic/`."""
    package = Path(factory_logs.__file__).resolve().parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "alembic"


def config(database_url: str | None = None) -> Config:
    """Alembic's configuration without an ini file. The URL is no option: a `%` in a password would be expanded."""
    made = Config()
    made.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["database_url"] = database_url
    return made


async def upgrade(database_url: str) -> None:
    """Run the migrations that the database lacks; others doing the same wait. Raises DatabaseUnavailableError."""
    with translate_errors():
        # env.py starts an event loop of its own, so it needs a thread without one.
        await asyncio.to_thread(command.upgrade, config(database_url), "head")


async def current(database: Database) -> str | None:
    """The revision the database is at; None for one without tables. Raises DatabaseUnavailableError."""

    def read(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    async with database.connect() as connection:
        return await connection.run_sync(read)


def head() -> str:
    """The revision this program needs."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    if revision is None:
        raise RuntimeError(f"there are no migrations in {scripts()}")
    return revision

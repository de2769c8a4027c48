"""Migrate the tables of the database to this version of the program with Alembic. Every worker may call this.

Migrations change the indexes of a table that is in use with `change_indexes`. CREATE INDEX and DROP INDEX block
writers, the first one until it has read the whole table; with CONCURRENTLY they do not. But CONCURRENTLY cannot run in
a transaction, and if it is interrupted it leaves an INVALID index. So each step first checks the existing indexes, and
the next run continues an interrupted one.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

import factory_logs
from factory_logs.db.connecting import check_pooler
from factory_logs.db.engine import Database
from factory_logs.db.errors import translate_errors

CONNECT_SECONDS = 10.0


def scripts() -> Path:
    """Return the folder of the migrations: inside the package in a wheel, `alembic/` in a checkout."""
    package = Path(factory_logs.__file__).resolve().parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parents[1] / "alembic"


def config(database_url: str | None = None) -> Config:
    """Return Alembic's configuration. It does not contain the URL, because Alembic would expand a `%` in a password."""
    made = Config()
    made.set_main_option("script_location", str(scripts()).replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["database_url"] = database_url
    return made


async def upgrade(database_url: str) -> None:
    """Run the missing migrations. Other processes that migrate at the same time wait.

    Raises DatabaseUnavailableError, and UnsuitableDatabaseError if no migration can help.
    """
    await check_pooler(database_url, CONNECT_SECONDS)
    with translate_errors():
        # env.py starts an event loop of its own, so it needs a thread without one.
        await asyncio.to_thread(command.upgrade, config(database_url), "head")


async def current(database: Database) -> str | None:
    """Return the migration revision of the database, or None if the database has no tables. Raises
    DatabaseUnavailableError."""

    def read(connection: Connection) -> str | None:
        return MigrationContext.configure(connection).get_current_revision()

    async with database.connect() as connection:
        return await connection.run_sync(read)


def head() -> str:
    """Return the migration revision that this program needs."""
    revision = ScriptDirectory.from_config(config()).get_current_head()
    if revision is None:
        raise RuntimeError(f"there are no migrations in {scripts()}")
    return revision


def is_known(revision: str) -> bool:
    """Return whether this program knows this revision, and so can migrate a database that has it."""
    return any(script.revision == revision for script in ScriptDirectory.from_config(config()).walk_revisions())


_THERE = text("""
SELECT c.relname, i.indisvalid, split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2)
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass(:table)
""")


def change_indexes(op: Operations, table: str, wanted: Mapping[str, str | None]) -> None:
    """Create, replace or drop indexes of the table: `wanted` maps names to definitions; None drops the index.

    A definition is the text that PostgreSQL shows after USING. This commits the earlier changes of the migration,
    unless the table is empty: then everything stays in the migration's transaction.
    """
    connection = op.get_bind()
    if connection.scalar(text(f"SELECT EXISTS (SELECT FROM {table})")):  # noqa: S608 - a migration's own word
        with op.get_context().autocommit_block():
            # CONCURRENTLY waits for other transactions, which counts as waiting for a lock, and blocks no request.
            before = connection.scalar(text("SHOW lock_timeout"))
            connection.execute(text("SET lock_timeout TO 0"))
            for name, definition in wanted.items():
                _change_during_writes(connection, table, name, definition)
            connection.execute(text(f"SET lock_timeout TO '{before}'"))
        return
    for name, definition in wanted.items():
        op.execute(f"DROP INDEX IF EXISTS {name}, {_successor(name)}")
        if definition is not None:
            op.execute(f"CREATE INDEX {name} ON {table} USING {definition}")


def _change_during_writes(connection: Connection, table: str, name: str, definition: str | None) -> None:
    """Build the new index under another name, then drop the old one and rename the new one. One of them always serves
    queries."""
    successor = _successor(name)
    there: dict[str, str] = {}
    for found, is_valid, its_definition in connection.execute(_THERE, {"table": table}):
        if is_valid:
            there[found] = its_definition
        elif found in (name, successor):
            _drop(connection, found)
    if there.get(name) == definition:
        return
    if definition is not None and there.get(successor) != definition:
        _drop(connection, successor)
        connection.execute(text(f"CREATE INDEX CONCURRENTLY {successor} ON {table} USING {definition}"))
    _drop(connection, name)
    if definition is not None:
        connection.execute(text(f"ALTER INDEX {successor} RENAME TO {name}"))


def _drop(connection: Connection, name: str) -> None:
    connection.execute(text(f"DROP INDEX CONCURRENTLY IF EXISTS {name}"))


def _successor(name: str) -> str:
    return f"{name}_new"

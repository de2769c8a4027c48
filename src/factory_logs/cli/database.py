"""Open the database for a command: the embedded PostgreSQL, or the PostgreSQL of the operator."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg
from alembic.util import CommandError as AlembicError
from sqlalchemy.exc import ArgumentError, DBAPIError

from factory_logs.cli.environment import load_settings
from factory_logs.cli.output import CommandError, ending_on_sigterm, print_message
from factory_logs.db.connecting import normalise_url
from factory_logs.db.engine import Database
from factory_logs.db.errors import CLIENT_ERRORS, translate_errors
from factory_logs.db.migrations import current, head, upgrade
from factory_logs.db.users import UserRecord, UserRepository
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.retention.removal import UNLIMITED_SECONDS
from factory_logs.settings import Settings

T = TypeVar("T")

INSUFFICIENT_PRIVILEGE = "42501"


@contextmanager
def database_url(settings: Settings, *, create: bool = False, serving: bool = False) -> Iterator[str]:
    """Yield the URL of the operator's PostgreSQL, or of the embedded PostgreSQL, which runs during the block. Raises
    CommandError.

    If there is no embedded database, create it if `create` is set, and raise an error otherwise. With `serving`, a
    message announces the start, and a server that ends is restarted.
    """
    if settings.database_url is not None:
        url = settings.database_url.get_secret_value()
        try:
            normalise_url(url)
        except (ValueError, ArgumentError):
            raise CommandError(
                "FACTORY_LOGS_DATABASE_URL is not a URL such as postgresql://user:password@host:5432/name"
            ) from None
        yield url
        return
    with reporting_embedded_errors(settings):
        from factory_logs.embedded import has_database, running

        if serving:
            print_message(f"Starting the embedded PostgreSQL in {settings.data_dir} ...")
        if not create and not has_database(settings.data_dir):
            raise CommandError(_no_database(settings))
        with running(
            settings.data_dir,
            watch=serving,
            max_log_bytes=settings.max_postgres_log_bytes,
            memory_bytes=settings.postgres_memory_bytes,
            bin_dir=settings.postgres_bin_dir,
        ) as url:
            yield url


@contextmanager
def reporting_embedded_errors(settings: Settings) -> Iterator[None]:
    """Raise errors of the embedded PostgreSQL as CommandError, also if this system does not support it."""
    try:
        from factory_logs.embedded import EmbeddedPostgresError
    except ModuleNotFoundError as error:
        if error.name not in ("fcntl", "pwd"):
            raise
        raise CommandError(
            "there is no embedded PostgreSQL on this system; set FACTORY_LOGS_DATABASE_URL to your own"
        ) from None
    try:
        yield
    except EmbeddedPostgresError as error:
        raise CommandError(str(error)) from None
    except PermissionError as error:
        raise CommandError(f"no permission for {error.filename or settings.data_dir}") from None


def embedded_settings(command: str) -> Settings:
    """Return the settings for a command that supports only the embedded database. Raises CommandError."""
    settings = load_settings()
    if settings.database_url is not None:
        raise CommandError(
            f"{command} is for the embedded database; your own PostgreSQL (FACTORY_LOGS_DATABASE_URL) is backed up "
            "with its pg_dump and restored with its pg_restore, see docs/how-to/back-up.md"
        )
    return settings


def _no_database(settings: Settings) -> str:
    folders = [settings.data_dir]
    if "FACTORY_LOGS_DATA_DIR" not in {name.upper() for name in os.environ}:
        folders.insert(0, Settings.model_fields["data_dir"].default)  # the default folder of root may differ
    looked = " and ".join(dict.fromkeys(str(folder.expanduser().resolve()) for folder in folders))
    return (
        f"there is no embedded database in {looked}. "
        "Run the command in the directory in which `factory-logs serve` runs, or set FACTORY_LOGS_DATA_DIR to its data "
        "directory, or FACTORY_LOGS_DATABASE_URL to your own PostgreSQL. "
        "`factory-logs serve` and `factory-logs migrate` create a new database"
    )


def disk_reserve(database: Database, settings: Settings) -> DiskReserve:
    """Return the DiskReserve of the database, for a command that writes logs into the database."""
    if settings.database_url is not None:
        return DiskReserve(database, settings, None)
    from factory_logs.embedded.os_user import cluster_dir

    return DiskReserve(database, settings, cluster_dir(settings.data_dir.expanduser().resolve()))


def with_database(work: Callable[[Database, Settings], Awaitable[T]]) -> T:
    """Run `work` on the database that the settings name, and return its result. Raises CommandError if there are no
    tables."""
    settings = load_settings()
    with ending_on_sigterm(), database_url(settings) as url:
        return asyncio.run(_with_tables(url, settings, work))


async def _with_tables(url: str, settings: Settings, work: Callable[[Database, Settings], Awaitable[T]]) -> T:
    database = Database(url, settings.model_copy(update={"statement_timeout_seconds": UNLIMITED_SECONDS}))
    try:
        await database.check()
        if await current(database) != head():
            if settings.database_url is not None:
                raise CommandError("the database has no tables of this version: run factory-logs migrate")
            await migrated(url)
        return await work(database, settings)
    except (DBAPIError, asyncpg.PostgresError, *CLIENT_ERRORS) as error:
        if _sqlstate(error) != INSUFFICIENT_PRIVILEGE:
            with translate_errors():
                raise
        raise CommandError(
            "the database's user may not do this; use the owner of the tables in FACTORY_LOGS_DATABASE_URL"
        ) from None
    finally:
        await database.dispose()


async def migrated(url: str) -> None:
    """Run the missing migrations. Raises CommandError if they cannot run."""
    try:
        await upgrade(url)
    except AlembicError:
        raise CommandError("the database's tables are of a newer version of factory-logs; upgrade this one") from None
    except DBAPIError as error:
        if _sqlstate(error) != INSUFFICIENT_PRIVILEGE:
            raise
        raise CommandError(
            "the database's user may not change tables: run factory-logs migrate as a user who may"
        ) from None


def _sqlstate(error: BaseException) -> object:
    return getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)


async def user_named(database: Database, name: str) -> UserRecord:
    """Return the user with this name. Raises CommandError if the user does not exist."""
    user = await UserRepository(database).get_by_name(name)
    if user is None:
        raise CommandError(f"there is no user {name!r}; factory-logs users list shows all")
    return user

"""A command's way to the database: the settings, the embedded PostgreSQL or an own one, and tables that are there."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import asyncpg
from alembic.util import CommandError as AlembicError
from pydantic import ValidationError
from sqlalchemy.exc import ArgumentError, DBAPIError

from factory_logs.cli.reporting import CommandError, tell
from factory_logs.db.engine import Database, normalise_url
from factory_logs.db.migrate import current, head, upgrade
from factory_logs.db.users import UserRecord, UserRepository
from factory_logs.settings import Settings

T = TypeVar("T")

INSUFFICIENT_PRIVILEGE = "42501"
UNLIMITED_SECONDS = 7 * 86400.0
"""The statement timeout of a command: somebody waits for it and can stop it."""


def load_settings(**overrides: object) -> Settings:
    """The settings of the environment; an override of None is none. Raises CommandError naming what is wrong."""
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        faults = "; ".join(
            f"FACTORY_LOGS_{'_'.join(map(str, fault['loc'])).upper()}: {fault['msg']}"
            for fault in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise CommandError(faults) from None


@contextmanager
def database_url(settings: Settings, *, serving: bool = False) -> Iterator[str]:
    """The URL of the own PostgreSQL, or of the embedded one, which runs meanwhile. Raises CommandError.

    `serving` says so, and starts the embedded one again where it has ended.
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
    try:
        from factory_logs.embedded import EmbeddedPostgresError, running
    except ModuleNotFoundError as error:
        if error.name not in ("fcntl", "pwd"):
            raise
        raise CommandError(
            "there is no embedded PostgreSQL on this system; set FACTORY_LOGS_DATABASE_URL to an own one"
        ) from None
    if serving:
        tell(f"Starting the embedded PostgreSQL in {settings.data_dir} ...")
    try:
        with running(settings.data_dir, watch=serving) as url:
            yield url
    except EmbeddedPostgresError as error:
        raise CommandError(str(error)) from None
    except PermissionError as error:
        raise CommandError(f"no permission for {error.filename or settings.data_dir}") from None


def with_database(work: Callable[[Database, Settings], Awaitable[T]]) -> T:
    """What `work` gives on the database of the settings. Raises CommandError where the tables are not there."""
    settings = load_settings()
    with database_url(settings) as url:
        return asyncio.run(_with_tables(url, settings, work))


async def _with_tables(url: str, settings: Settings, work: Callable[[Database, Settings], Awaitable[T]]) -> T:
    database = Database(url, settings.model_copy(update={"statement_timeout_seconds": UNLIMITED_SECONDS}))
    try:
        if await current(database) != head():
            if settings.database_url is not None:
                raise CommandError("the database has no tables of this version: run factory-logs migrate")
            await migrated(url)
        return await work(database, settings)
    except (DBAPIError, asyncpg.InsufficientPrivilegeError) as error:
        if _sqlstate(error) != INSUFFICIENT_PRIVILEGE:
            raise
        raise CommandError("the database's user may not do this; name its owner in FACTORY_LOGS_DATABASE_URL") from None
    finally:
        await database.dispose()


async def migrated(url: str) -> None:
    """Run the migrations the database lacks. Raises CommandError where that cannot be."""
    try:
        await upgrade(url)
    except AlembicError:
        raise CommandError("the database's tables are of a newer version of factory-logs; upgrade this one") from None
    except DBAPIError as error:
        if _sqlstate(error) != INSUFFICIENT_PRIVILEGE:
            raise
        raise CommandError(
            "the database's user may not change tables: run factory-logs migrate as one who may"
        ) from None


def _sqlstate(error: BaseException) -> object:
    return getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)


async def user_named(database: Database, name: str) -> UserRecord:
    """Raises CommandError where there is no such user."""
    user = await UserRepository(database).get_by_name(name)
    if user is None:
        raise CommandError(f"there is no user {name!r}; factory-logs users list shows all")
    return user

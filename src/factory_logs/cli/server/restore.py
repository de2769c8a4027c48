"""`factory-logs restore`: create a new embedded database from a backup."""

import asyncio
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, NamedTuple

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from factory_logs.cli.output import CommandError, counted, ending_on_sigterm, is_terminal, reporting_errors

if TYPE_CHECKING:
    from factory_logs.embedded.server import Server

TABLES = ("alembic_version", "factory_logs", "repairs", "users", "tokens")
_CONTENT = """
SELECT (SELECT version_num FROM alembic_version) AS revision,
       (SELECT count(*) FROM factory_logs), (SELECT count(*) FROM repairs), (SELECT count(*) FROM users)
"""


class _Content(NamedTuple):
    revision: str
    logs: int
    repairs: int
    users: int


def restore(
    file: Annotated[Path, typer.Argument(help="The file that `backup` wrote.", dir_okay=False)],
) -> None:
    """Create an embedded database from a backup, in a data directory without a database. Tokens and passwords stay
    valid.

    The database appears when it is complete. A restore that was stopped leaves no files and can be run again.
    """
    with reporting_errors(), ending_on_sigterm():
        from factory_logs.cli.database import embedded_settings, reporting_embedded_errors
        from factory_logs.embedded.backup import new_database

        settings = embedded_settings("restore")
        try:
            source = file.open("rb")
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}") from None
        with source, reporting_embedded_errors(settings):
            if not stat.S_ISREG(os.fstat(source.fileno()).st_mode):
                raise CommandError(f"{file} is not a regular file")
            with new_database(settings.data_dir, settings.postgres_bin_dir) as server:
                content = asyncio.run(_restore(server, source, file))
        counts = [counted(*count) for count in zip(content[1:], ("log", "repair", "user"), strict=True)]
        typer.echo(f"Restored {', '.join(counts[:-1])} and {counts[-1]} from {file} into {settings.data_dir}")


async def _restore(server: "Server", source: BinaryIO, file: Path) -> _Content:
    from factory_logs.embedded import EmbeddedPostgresError
    from factory_logs.embedded.backup import contents, load

    try:
        held = await contents(server, source)
        if missing := [table for table in TABLES if f" TABLE DATA public {table} " not in held]:
            raise CommandError(f"{file} is not a backup of factory-logs: it has no table {missing[0]}")
        with _Bar(source) as bar:
            await load(server, source, bar.watch)
            return await _checked(server, file, bar)
    except EmbeddedPostgresError as error:
        raise CommandError(f"{file} cannot be restored: {error}") from None


async def _checked(server: "Server", file: Path, bar: "_Bar") -> _Content:
    """Return a description of the content of the restored database. Raises CommandError if this program cannot use the
    database."""
    import asyncpg

    from factory_logs.db.migrations import is_known

    connection = await asyncpg.connect(server.url)
    try:
        bar.begin("Counting")
        content = _Content(*await connection.fetchrow(_CONTENT))
        if not is_known(content.revision):
            raise CommandError(f"{file} was written by a newer version of factory-logs; upgrade this one")
        await connection.execute("ANALYZE")  # without statistics PostgreSQL plans badly until autovacuum runs
        return content
    finally:
        await connection.close()


class _Bar:
    """Shows a progress bar if stderr is a terminal: how much of the file has been read, and then the current step."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._size = os.fstat(source.fileno()).st_size
        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TimeRemainingColumn(),
        )  # fmt: skip
        self._progress = Progress(*columns, console=Console(stderr=True), disable=not is_terminal(), transient=True)
        self._task = self._progress.add_task("Loading", total=self._size)

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    async def watch(self) -> None:
        # pg_restore reads through the same open file, so its position shows the progress.
        position = os.lseek(self._source.fileno(), 0, os.SEEK_CUR)
        if position < self._size:
            self._progress.update(self._task, completed=position)
        else:
            self.begin("Building indexes")

    def begin(self, step: str) -> None:
        """Show a step of unknown length."""
        self._progress.update(self._task, description=step, total=None)

"""`factory-logs backup`: write the embedded database to a file while the service runs."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from factory_logs.cli.output import CommandError, ending_on_sigterm, is_terminal, reporting_errors

if TYPE_CHECKING:
    from factory_logs.embedded.server import Server

# The number of logs is PostgreSQL's estimate, because counting the logs would read the whole table again.
_PROGRESS = """
SELECT (SELECT tuples_processed FROM pg_stat_progress_copy WHERE relid = 'factory_logs'::regclass LIMIT 1) AS logs,
       (SELECT nullif(greatest(reltuples, 0), 0)::bigint FROM pg_class WHERE oid = 'factory_logs'::regclass) AS total
"""


def backup(
    file: Annotated[Path, typer.Argument(help="The file to write, such as logs.backup.", dir_okay=False)],
) -> None:
    """Write all logs, repairs, users and tokens of the embedded database to a file, in one snapshot.

    The service can keep running. An existing file of this name is replaced only when the backup is complete.
    """
    with reporting_errors(), ending_on_sigterm():
        from factory_logs.cli.database import database_url, embedded_settings
        from factory_logs.embedded.sharing import prepare

        settings = embedded_settings("backup")
        if not file.parent.is_dir():
            raise CommandError(f"there is no folder {file.parent}")
        if file.exists() and not file.is_file():
            raise CommandError(f"{file} is not a regular file")
        with database_url(settings):
            asyncio.run(_backup(prepare(settings.data_dir, bin_dir=settings.postgres_bin_dir), file))
        typer.echo(f"Backed up {settings.data_dir} to {file}, {decimal(file.stat().st_size)}")


async def _backup(server: "Server", file: Path) -> None:
    import asyncpg

    from factory_logs.embedded.backup import dump

    connection = await asyncpg.connect(server.url)
    try:
        if await connection.fetchval("SELECT to_regclass('factory_logs')") is None:
            raise CommandError("the database has no tables yet: run factory-logs migrate")
        columns = TextColumn("Logs"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), disable=not is_terminal(), transient=True) as progress:
            task = progress.add_task("", total=None)

            async def watch() -> None:
                logs, total = await connection.fetchrow(_PROGRESS)
                if logs is not None:  # other tables come before and after the logs
                    progress.update(task, completed=logs, total=total and max(total, logs))

            try:
                await dump(server, file, watch)
            except OSError as error:
                raise CommandError(f"cannot write {file}: {error.strerror}") from None
    finally:
        await connection.close()

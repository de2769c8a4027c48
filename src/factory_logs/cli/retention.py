"""`factory-logs retention`: which logs would go, and with --delete their going."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from factory_logs.cli.durations import parse_duration
from factory_logs.cli.reporting import is_terminal, reporting_errors, tell

if TYPE_CHECKING:
    import asyncpg

    from factory_logs.db.engine import Database
    from factory_logs.settings import Settings

BATCH_LOGS = 5000
"""How many logs one transaction takes away. They are locked meanwhile, which nobody else wants to do."""


def retention(
    older_than: Annotated[
        str, typer.Option(help="The age by `timestamp` from which on a log is old, such as 400d, 60w or 36h.")
    ],
    delete: Annotated[bool, typer.Option("--delete", help="Take the old logs away, for good.")] = False,
) -> None:
    """Show which logs are older than an age; with --delete take them away.

    Writers and readers go on meanwhile, and `num_results` stays exact. It may be stopped and run again at any time.
    """
    with reporting_errors():
        from factory_logs.cli.database import with_database
        from factory_logs.db.retention import old_logs

        cutoff = (datetime.now(UTC) - parse_duration(older_than)).replace(tzinfo=None)

        async def work(database: "Database", _: "Settings") -> int:
            connection = await database.connect_raw()
            try:
                old = await old_logs(connection, cutoff)
                for app in old:
                    typer.echo(f"{app.app_name}: {app.logs} logs from {app.oldest:%Y-%m-%d} to {app.newest:%Y-%m-%d}")
                total = sum(app.logs for app in old)
                return await _remove(connection, cutoff, total) if delete else total
            finally:
                await connection.close()

        logs = with_database(work)
        before = f"from before {cutoff:%Y-%m-%d %H:%M:%S}"
        typer.echo(f"Deleted {logs} logs {before}" if delete else f"{logs} logs {before} would be deleted")
        if logs and not delete:
            tell("Nothing was deleted; --delete does it.")


async def _remove(connection: "asyncpg.Connection", cutoff: datetime, total: int) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from factory_logs.db.retention import START, remove_batch

    removal, removed = START, 0
    columns = BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not is_terminal(), transient=True) as progress:
        task = progress.add_task("", total=total)
        while True:
            removal = await remove_batch(connection, cutoff, BATCH_LOGS, removal)
            removed += removal.logs
            progress.update(task, completed=removed)
            if removal.logs < BATCH_LOGS:
                return removed

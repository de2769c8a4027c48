"""`factory-logs distribute`: spread the logs over the worker nodes of a Citus cluster (docs/how-to/scale-out.md)."""

from typing import TYPE_CHECKING, Annotated

import typer

from factory_logs.cli.output import CommandError, is_terminal, print_message, reporting_errors

if TYPE_CHECKING:
    from factory_logs.db.engine import Database
    from factory_logs.settings import Settings


def distribute(
    shards: Annotated[
        int | None,
        typer.Option(min=2, help="The number of shards: 4 for each planned worker node.", show_default="4 a node"),
    ] = None,
) -> None:
    """Distribute the logs over the worker nodes of a Citus cluster, while the service runs.

    The database must be that of the coordinator, after `migrate`. You can stop the command and run it again at any
    time. If the logs are already distributed, it changes nothing.
    """
    with reporting_errors():
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        from factory_logs.cli.database import with_database
        from factory_logs.db.citus_distribute import CannotDistributeError, Distributor

        async def work(database: "Database", settings: "Settings") -> Distributor:
            connection = await database.connect_raw()
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            console = Console(stderr=True)
            try:
                with Progress(*columns, console=console, disable=not is_terminal(), transient=True) as progress:
                    task = progress.add_task("", total=None)
                    distributor = Distributor(connection, shards)
                    async for now in distributor.run():
                        progress.update(task, description=now.step, completed=now.copied, total=now.total)
                    return distributor
            except CannotDistributeError as error:
                raise CommandError(str(error)) from None
            finally:
                await connection.close()

        done = with_database(work)
        print_message(f"The logs are distributed; writers waited for {done.locked_seconds:.1f} s")
        if done.must_restart:
            print_message("Now restart factory-logs serve; until then it responds with 503 to some requests")

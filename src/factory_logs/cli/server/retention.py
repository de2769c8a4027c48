"""`factory-logs retention`: list expired logs; `--delete` removes them, after writing an archive with `--archive`.

Options or a file of policies define which logs have expired.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from factory_logs.cli.output import CommandError, counted, is_terminal, print_message, reporting_errors
from factory_logs.durations import parse_duration

if TYPE_CHECKING:
    from factory_logs.db.engine import Database
    from factory_logs.retention.archive import Archive, Progress
    from factory_logs.retention.removal import Expired
    from factory_logs.settings import Settings


def retention(
    older_than: Annotated[
        str | None, typer.Option(help="Logs with an older `timestamp` are expired: 400d, 60w or 36h.")
    ] = None,
    q: Annotated[
        str | None, typer.Option("--q", help="Only logs that the filters of this q select.", show_default="all")
    ] = None,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the expired logs permanently.")] = False,
    archive: Annotated[
        Path | None,
        typer.Option(help="With --delete: first write the logs to a new archive in this folder.", file_okay=False),
    ] = None,
    policies: Annotated[
        Path | None,
        typer.Option(
            help="A TOML file with policies, instead of the options above.",
            dir_okay=False,
            show_default="FACTORY_LOGS_RETENTION_POLICIES",
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list, as without --delete.")] = False,
) -> None:
    """List expired logs by app; --delete removes them.

    Writes and reads continue meanwhile, and `num_results` stays exact. You can stop the command and run it again at any
    time. An archive is read back and checked before a log is removed; `import` restores its logs.
    """  # fmt: skip
    with reporting_errors():
        if delete and dry_run:
            raise CommandError("give either --delete or --dry-run")
        if older_than is None and (q is not None or archive is not None):
            raise CommandError("--q and --archive need --older-than")
        if older_than is not None and policies is not None:
            raise CommandError("give either --older-than or --policies")
        if older_than is not None:
            _by_age(older_than, q, archive, delete=delete)
        else:
            _by_policies(policies, delete=delete)


def _by_age(older_than: str, q: str | None, archive: Path | None, *, delete: bool) -> None:
    from factory_logs.cli.database import with_database
    from factory_logs.query import QueryLimits
    from factory_logs.retention.removal import expired

    cutoff = (datetime.now(UTC) - parse_duration(older_than)).replace(tzinfo=None)

    async def work(database: "Database", settings: "Settings") -> int:
        return await _apply(database, expired(cutoff, q, QueryLimits.from_settings(settings)), archive, delete=delete)

    logs = with_database(work)
    before = f"from before {cutoff:%Y-%m-%d %H:%M:%S}"
    if q is not None:
        before += " that --q selects"
    found = f"{counted(logs, 'log')} {before}"
    typer.echo(f"Deleted {found}" if delete else f"{found} would be deleted")
    if logs and not delete:
        print_message("Nothing was deleted; --delete does it.")


def _by_policies(file: Path | None, *, delete: bool) -> None:
    """Apply all policies in a file, by default the one in the settings, even if `serve` has just applied them."""
    from factory_logs.cli.database import with_database
    from factory_logs.cli.environment import load_settings
    from factory_logs.query import QueryLimits
    from factory_logs.retention.policies import check_archives, read_policies

    settings = load_settings()
    file = file or settings.retention_policies
    if file is None:
        raise CommandError("give --older-than AGE, or --policies FILE, or set FACTORY_LOGS_RETENTION_POLICIES")
    limits = QueryLimits.from_settings(settings)
    policies = read_policies(file, limits)
    if delete:
        check_archives(policies)

    async def work(database: "Database", _: "Settings") -> int:
        total = 0
        for policy in policies:
            typer.echo(str(policy))
            logs = policy.expired(datetime.now(UTC), limits)
            found = await _apply(database, logs, policy.archive, delete=delete, indent="  ")
            logs_found = counted(found, "log")
            typer.echo(f"  Deleted {logs_found}" if delete else f"  {logs_found} would be deleted")
            total += found
        return total

    if with_database(work) and not delete:
        print_message("Nothing was deleted; --delete does it.")


async def _apply(database: "Database", logs: "Expired", archive: Path | None, *, delete: bool, indent: str = "") -> int:
    """List the expired logs by app, and remove them if `delete` is set. Return the number of expired logs."""
    from factory_logs.retention.removal import alone, list_expired, remove

    apps = await list_expired(database, logs)
    for app in apps:
        typer.echo(
            f"{indent}{app.app_name}: {counted(app.logs, 'log')} from {app.oldest:%Y-%m-%d} to {app.newest:%Y-%m-%d}"
        )
    total = sum(app.logs for app in apps)
    if not delete or not total:
        return total

    def on_archived(archived: "Archive") -> None:
        typer.echo(f"{indent}Archived {counted(archived.manifest.logs, 'log')} in {archived.folder}")

    async with alone(database) as connection:
        steps = partial(_progress, total=total)
        return await remove(database, connection, logs, archive, steps=steps, on_archived=on_archived)


@contextmanager
def _progress(step: str, total: int) -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = TextColumn(step), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not is_terminal(), transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)

"""The `factory-logs` command (docs/reference/command-line.md).

The base installation has no server: this package imports only typer, rich and orjson, and a command imports the rest
when it runs.
"""

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from factory_logs import __version__
from factory_logs.cli import loadtest
from factory_logs.cli.commands import Commands
from factory_logs.cli.device import query, send, ship, spool, tail, yields
from factory_logs.cli.server import (
    backup,
    distribute,
    doctor,
    migrate,
    repairs,
    restore,
    retention,
    serve,
    settings,
    tokens,
    users,
)
from factory_logs.cli.transfer import export_logs, import_files

app = Commands(
    name="factory-logs",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"factory-logs {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=show_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Store and serve the product logs of factories and repair centres."""


app.command("serve")(serve.serve)
app.command("migrate")(migrate.migrate)
app.command("settings")(settings.show_settings)
app.add_typer(users.app, name="users")
app.add_typer(tokens.app, name="tokens")
app.add_typer(repairs.app, name="repairs")
app.command("import")(import_files.import_files)
app.command("export")(export_logs.export_logs)
app.command("distribute")(distribute.distribute)
app.command("retention")(retention.retention)
app.command("backup")(backup.backup)
app.command("restore")(restore.restore)
app.command("doctor")(doctor.doctor)
app.command("send")(send.send)
app.command("ship")(ship.ship)
app.command("tail")(tail.tail)
app.command("query")(query.query)
app.command("yield")(yields.show_yield)
app.command("loadtest")(loadtest.loadtest)
app.add_typer(spool.app, name="spool")


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal or a pipe in another encoding than UTF-8, as on Windows
            stream.reconfigure(errors="backslashreplace")
    app()

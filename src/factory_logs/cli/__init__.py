"""The `factory-logs` command (SPEC 9).

The base install has no server: this package imports only typer and rich, and a command imports the rest when it runs.
"""

import typer

from factory_logs.cli import devices, loadtest, repairs, retention, serve, settings, spool, tokens, transfer, users

app = typer.Typer(
    name="factory-logs",
    help="Stores and serves the product logs of factories and repair centres.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("migrate")(serve.migrate)
app.command("settings")(settings.show_settings)
app.add_typer(users.app, name="users")
app.add_typer(tokens.app, name="tokens")
app.add_typer(repairs.app, name="repairs")
app.command("import")(transfer.import_files)
app.command("export")(transfer.export_logs)
app.command("retention")(retention.retention)
app.command("send")(devices.send)
app.command("ship")(devices.ship)
app.command("tail")(devices.tail)
app.command("loadtest")(loadtest.loadtest)
app.add_typer(spool.app, name="spool")


def main() -> None:
    app()

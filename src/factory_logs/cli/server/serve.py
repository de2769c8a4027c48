"""`factory-logs serve`: run the service."""

from typing import Annotated

import typer

from factory_logs.cli.output import reporting_errors


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 selects a free port.", show_default="8000")] = None,
    workers: Annotated[int | None, typer.Option(help="The number of worker processes.", show_default="1")] = None,
) -> None:
    """Run the service. Settings come from FACTORY_LOGS_*; options override them.

    Without FACTORY_LOGS_DATABASE_URL, an embedded PostgreSQL runs in FACTORY_LOGS_DATA_DIR while the service runs.
    """
    with reporting_errors():
        from factory_logs.cli.server.startup import run

        run(host=host, port=port, workers=workers)

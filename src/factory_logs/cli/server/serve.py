"""`factory-logs serve`: run the service."""

from typing import Annotated

import typer

from factory_logs.cli.output import reporting_errors


def serve(
    host: Annotated[str | None, typer.Option(help="The address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[int | None, typer.Option(help="The port; 0 takes a free one.", show_default="8000")] = None,
    workers: Annotated[int | None, typer.Option(help="How many processes serve.", show_default="1")] = None,
) -> None:
    """Run the service. Settings come from FACTORY_LOGS_*; options go before them.

    Without FACTORY_LOGS_DATABASE_URL a PostgreSQL runs under FACTORY_LOGS_DATA_DIR as long as the service does.
    """
    with reporting_errors():
        from factory_logs.cli.server.startup import run

        run(host=host, port=port, workers=workers)

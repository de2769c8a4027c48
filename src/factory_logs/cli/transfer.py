"""`factory-logs import` and `export`."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from factory_logs.cli.reporting import reporting_errors


class Format(StrEnum):
    """The files that are read and written."""

    NDJSON = "ndjson"
    CSV = "csv"


class Kind(StrEnum):
    """What a file holds."""

    LOGS = "logs"
    REPAIRS = "repairs"


def import_files(
    files: Annotated[list[str], typer.Argument(help=".ndjson, .jsonl or .csv, each also .gz; - is stdin.")],
    file_format: Annotated[
        Format | None, typer.Option("--format", help="The files' format.", show_default="by the file's name")
    ] = None,
    table: Annotated[Kind, typer.Option(help="What the files hold.")] = Kind.LOGS,
    created_by: Annotated[str | None, typer.Option(help="Who is named as the records' creator.")] = None,
) -> None:
    """Store the records of files, 1000 in one commit. Each bad line is named on stderr; the good ones are stored."""
    with reporting_errors():
        from factory_logs.cli.importing import run

        if run(files, file_format, table, created_by):
            raise typer.Exit(1)


def export_logs(
    q: Annotated[str | None, typer.Option("--q", help="Which logs, as the API's q.", show_default="all")] = None,
    file_format: Annotated[
        Format | None, typer.Option("--format", help="The format to write.", show_default="by --output, else ndjson")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="The file to write.", show_default="stdout")] = None,
) -> None:
    """Write logs as NDJSON or CSV, in constant memory; `import` reads both."""
    with reporting_errors():
        from factory_logs.cli.exporting import run

        run(q, file_format, output)

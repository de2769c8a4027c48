"""`factory-logs import` and `export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from factory_logs.cli.reporting import reporting_errors


class Format(StrEnum):
    """The files that are read; of them NDJSON and CSV are written too."""

    NDJSON = "ndjson"
    CSV = "csv"
    LINE_PROTOCOL = "lp"
    INFLUX_CSV = "influx-csv"


class Kind(StrEnum):
    """What a file holds."""

    LOGS = "logs"
    REPAIRS = "repairs"


@dataclass(frozen=True, slots=True)
class InfluxOptions:
    """How InfluxDB's dumps are read; `jobs` is how many processes store them, None for one for each core."""

    precision: str = "ns"
    tag_columns: Sequence[str] = ()
    rejected: Path | None = None
    jobs: int | None = None


def import_files(
    files: Annotated[list[str], typer.Argument(help=".ndjson, .jsonl, .csv or .lp, each also .gz; - is stdin.")],
    file_format: Annotated[
        Format | None, typer.Option("--format", help="The files' format.", show_default="by the file's name")
    ] = None,
    table: Annotated[Kind, typer.Option(help="What the files hold.")] = Kind.LOGS,
    created_by: Annotated[str | None, typer.Option(help="Who is named as the records' creator.")] = None,
    precision: Annotated[str, typer.Option(help="lp, influx-csv: the unit of times: ns, us, ms, s, m, h.")] = "ns",
    tag_column: Annotated[
        list[str] | None, typer.Option(help="influx-csv: a column that is a tag; once for each.")
    ] = None,
    rejected: Annotated[Path | None, typer.Option(help="lp, influx-csv: the file that gets all bad lines.")] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="lp, influx-csv: how many processes.", show_default="one for each core")
    ] = None,
) -> None:
    """Store the records of files, 1000 in one commit. Each bad line is named on stderr; the good ones are stored.

    A dump of InfluxDB, .lp or --format influx-csv, may be imported again, or on where it was cut off: each point is
    stored once.
    """
    with reporting_errors():
        from factory_logs.cli.importing import run

        options = InfluxOptions(precision, tag_column or (), rejected, jobs)
        if run(files, file_format, table, created_by, options):
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

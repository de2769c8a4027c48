"""`factory-logs export`: a query's rows through a server-side cursor into a file or stdout."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import typer

from factory_logs.cli.database import with_database
from factory_logs.cli.reporting import CommandError
from factory_logs.cli.transfer import Format
from factory_logs.db.engine import Database
from factory_logs.query import FACTORY_LOGS, Limits, parse_query
from factory_logs.reading.exports import ExportFormat, exported
from factory_logs.settings import Settings


def run(q: str | None, file_format: Format | None, output: Path | None) -> None:
    """Write the logs that `q` selects; a file is there whole or not at all. Raises CommandError, BadRequestError."""
    by_name = Format.CSV if output is not None and output.suffix.lower() == ".csv" else Format.NDJSON
    if file_format not in (None, Format.NDJSON, Format.CSV):
        raise CommandError(f"--format {file_format} is read, not written; use ndjson or csv")
    written = ExportFormat.CSV if (file_format or by_name) is Format.CSV else ExportFormat.NDJSON

    async def work(database: Database, settings: Settings) -> None:
        limits = Limits(settings.max_filter_depth, settings.max_filter_nodes, settings.max_in_values)
        query = parse_query(q, FACTORY_LOGS, limits)
        with _opened(output) as write:
            async with aclosing(exported(database, query, FACTORY_LOGS, written)) as parts:
                async for part in parts:
                    write(part.encode())

    with_database(work)


@contextmanager
def _opened(output: Path | None) -> Iterator[Callable[[bytes], None]]:
    """What writes to the output. A regular file gets its name when it is complete."""
    if output is None:
        yield _writer(sys.stdout.buffer, "stdout")
        _writer(sys.stdout.buffer, "stdout")(b"")
        return
    whole = not output.exists() or output.is_file()
    place = output.with_name(f".{output.name}.part") if whole else output
    try:
        file = place.open("wb")
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror}") from None
    try:
        with file:
            write = _writer(file, str(output))
            yield write
            write(b"")
        if whole:
            place.replace(output)
    except BaseException:
        if whole:
            place.unlink(missing_ok=True)
        raise


def _writer(file: BinaryIO, name: str) -> Callable[[bytes], None]:
    def write(data: bytes) -> None:
        # Not left to the caller, who would take an OSError for the database's.
        try:
            file.write(data)
            file.flush()
        except BrokenPipeError:  # `| head` has seen enough
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
            raise typer.Exit(1) from None
        except OSError as error:
            raise CommandError(f"cannot write {name}: {error.strerror}") from None

    return write

"""`factory-logs export`: write logs to a file or to stdout, read with a server-side cursor."""

import gzip
import os
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Protocol, cast

import typer

from factory_logs.cli.output import CommandError, EscapeFormulas, interruptible, reporting_errors
from factory_logs.cli.transfer.input_files import COMPRESSIONS, suffixes

if TYPE_CHECKING:
    from factory_logs.db.engine import Database
    from factory_logs.settings import Settings


class WrittenFormat(StrEnum):
    """The formats of exports."""

    NDJSON = "ndjson"
    CSV = "csv"


_FORMATS = {".ndjson": WrittenFormat.NDJSON, ".jsonl": WrittenFormat.NDJSON, ".csv": WrittenFormat.CSV}


class _Output(Protocol):
    def write(self, data: bytes, /) -> object: ...
    def flush(self) -> object: ...


def export_logs(
    q: Annotated[
        str | None, typer.Option("--q", help="Only logs that this q of the API selects, as JSON.", show_default="all")
    ] = None,
    file_format: Annotated[
        WrittenFormat | None,
        typer.Option("--format", help="The format of the output.", show_default="by --output, else ndjson"),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="The output file: .ndjson, .jsonl or .csv, with .gz or .zst to compress it.", show_default="stdout"
        ),
    ] = None,
    escape_formulas: EscapeFormulas = False,
) -> None:
    """Write logs as NDJSON or CSV, in constant memory; `import` reads both."""
    with reporting_errors():
        from factory_logs.cli.database import with_database
        from factory_logs.querier.exports import ExportFormat, exported
        from factory_logs.query import FACTORY_LOGS, QueryLimits, parse_query

        chosen = _output_format(output, file_format)
        written = ExportFormat.CSV if chosen is WrittenFormat.CSV else ExportFormat.NDJSON

        async def work(database: "Database", settings: "Settings") -> None:
            limits = QueryLimits.from_settings(settings)
            query = parse_query(q, FACTORY_LOGS, limits)
            with _opened(output) as write:
                parts = exported(database, query, FACTORY_LOGS, written, escape_formulas=escape_formulas)
                async with aclosing(parts):
                    async for part in parts:
                        write(part.encode())

        try:
            with_database(work)
        except _EnoughError:
            raise typer.Exit from None


def _output_format(output: Path | None, file_format: WrittenFormat | None) -> WrittenFormat:
    """Return the given format, or the format of the file's suffix. Raises CommandError for an unknown suffix."""
    if file_format is not None or output is None:
        return file_format or WrittenFormat.NDJSON
    suffix, compression = suffixes(output.name)
    found = _FORMATS.get(suffix)
    if found is None and suffix:
        known = f"{', '.join(_FORMATS)}, each also with {' or '.join(COMPRESSIONS)}"
        raise CommandError(f"{output}: {suffix}{compression} is not one of {known}; or add --format")
    return found or WrittenFormat.NDJSON


@contextmanager
def _opened(output: Path | None) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes to the output. A regular file is renamed to its final name when it is complete.
    Raises CommandError."""
    if output is None:
        with _writing(sys.stdout.buffer, "") as write:
            yield write
        return
    whole = not output.exists() or output.is_file()
    # Another export may write to the same output.
    target = output.with_name(f".{output.name}.{secrets.token_hex(8)}.part") if whole else output
    try:
        file = target.open("wb")
    except OSError as error:
        raise CommandError(f"cannot write {output}: {error.strerror}") from None
    try:
        with file, _writing(file, str(output)) as write:
            yield write
        if whole:
            target.replace(output)
    except BaseException:
        if whole:
            target.unlink(missing_ok=True)
        raise


@contextmanager
def _writing(file: BinaryIO, name: str) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that writes to the file, and finish the file at the end. If the suffix of the file says so, the
    output is compressed."""
    packed = _packed(file, suffixes(name)[1])

    def write(data: bytes) -> None:
        # Handled here, because the caller would report an OSError as an error of the database.
        with _explained(file, name or "stdout"):
            packed.write(data)
            if packed is file:
                file.flush()

    yield write
    with _explained(file, name or "stdout"):
        if packed is not file:
            cast(BinaryIO, packed).close()
        file.flush()


def _packed(file: BinaryIO, compression: str) -> _Output:
    if compression == ".gz":
        return cast(_Output, gzip.GzipFile("", "wb", fileobj=file, mtime=0))
    if compression == ".zst":
        import zstandard

        return zstandard.ZstdCompressor().stream_writer(file, closefd=False)
    return file


class _EnoughError(Exception):
    """The reader of the output pipe has closed it."""


@contextmanager
def _explained(file: BinaryIO, name: str) -> Iterator[None]:
    try:
        with interruptible():
            yield
    except BrokenPipeError:
        with suppress(OSError):  # discard what is still buffered
            os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())
        raise _EnoughError from None
    except OSError as error:
        raise CommandError(f"cannot write {name}: {error.strerror}") from None

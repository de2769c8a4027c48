"""The options that the device commands share: server, token, spool and output formats.

A jig sets its server and token once, in its environment. Every user of the machine can read a token or password on a
command line, so the options can also read it from stdin, a file or the environment.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args

import typer

from factory_logs import device_environment
from factory_logs.cli.output import CommandError, print_message

if TYPE_CHECKING:
    from factory_logs.client import Client, Reader
    from factory_logs.client.token_source import TokenSource


def _from_stdin(value: str | None) -> str | None:
    """Return the next line of standard input for `-`, and any other value unchanged."""
    if value != "-":
        return value
    line = sys.stdin.readline().removeprefix("\ufeff").rstrip("\r\n")
    if not line:
        raise typer.BadParameter("standard input contains no line")
    return line


Url = Annotated[
    str, typer.Option("--url", envvar=device_environment.URL, help="The server, such as https://logs.example.com.")
]
Token = Annotated[
    str | None,
    typer.Option(
        "--token",
        envvar=device_environment.TOKEN,
        callback=_from_stdin,
        help="A device token; - reads it from standard input. Other users can see an argument in `ps`, so prefer -, "
        "--token-file or the environment.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option("--token-file", envvar=device_environment.TOKEN_FILE, help="A file that contains the token."),
]
Username = Annotated[
    str | None,
    typer.Option(
        "--username",
        envvar=device_environment.USERNAME,
        help="The username for a login instead of a token; needs a password.",
    ),
]
Password = Annotated[
    str | None,
    typer.Option(
        "--password",
        envvar=device_environment.PASSWORD,
        callback=_from_stdin,
        help="The user's password; - reads it from standard input. Other users can see an argument in `ps`.",
    ),
]
CaFile = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        envvar=device_environment.CA_FILE,
        help="A PEM file with the CAs to trust for https, such as a private CA.",
        show_default="public CAs",
    ),
]
Wait = Annotated[float, typer.Option("--wait", min=0, help="How many seconds a request without a response is retried.")]
SpoolFolder = Annotated[
    Path,
    typer.Option(
        "--spool", envvar=device_environment.SPOOL, help="The folder that stores logs until they are delivered."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON for other programs.")]
AsCsv = Annotated[bool, typer.Option("--csv", help="CSV for other programs; null is an empty cell.")]
OPTION_VARIABLES = tuple(
    option.envvar
    for annotated in (Url, Token, TokenFile, Username, Password, CaFile, SpoolFolder)
    for option in get_args(annotated)[1:]
)
"""The environment variables that set options of commands, but are not settings of the service."""

_CREDENTIALS = (
    f"--token or {device_environment.TOKEN}, --token-file or {device_environment.TOKEN_FILE}, "
    f"--username and --password or {device_environment.USERNAME} and {device_environment.PASSWORD}"
)
_SERVER = f"--url or {device_environment.URL}, --ca-file or {device_environment.CA_FILE}"


class ServerOptions(NamedTuple):
    """The options for a server and a token for it."""

    url: Url = device_environment.DEFAULT_URL
    token: Token = None
    token_file: TokenFile = None
    username: Username = None
    password: Password = None
    ca_file: CaFile = None

    def client(self, spool: Path) -> "Client":
        """Return the client for these options. Raises CommandError, SpoolError."""
        from factory_logs.client import Client, ClientSettings

        self.tokens()  # an error in them names their options
        try:
            return Client(
                self.url,
                self.token,
                spool=spool.expanduser(),
                token_file=self.token_file,
                username=self.username,
                password=self.password,
                settings=ClientSettings(ca_file=self.ca_file),
            )
        except ValueError as error:
            raise CommandError(f"{error} ({_SERVER})") from None

    def reader(self, wait_seconds: float) -> "Reader":
        """Return the reader for these options; it retries for `wait_seconds`. Raises CommandError."""
        from factory_logs.client import Reader

        self.tokens()  # without a token, Reader would use the environment
        try:
            return Reader(
                self.url,
                self.token,
                token_file=self.token_file,
                username=self.username,
                password=self.password,
                ca_file=self.ca_file,
                patience_seconds=wait_seconds,
                on_trouble=lambda why: print_message(f"{why}; trying again"),
            )
        except ValueError as error:
            raise CommandError(f"{error} ({_SERVER})") from None

    def tokens(self) -> "TokenSource":
        """Return the source of tokens for these options. Raises CommandError."""
        from factory_logs.client.token_source import token_source

        try:
            return token_source(self.token, self.token_file, self.username, self.password)
        except ValueError as error:
            raise CommandError(f"{error} ({_CREDENTIALS})") from None


def with_server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace the command's parameter `server` by the options of `ServerOptions`. The command receives their values as
    `server`."""
    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        if parameter.name == "server":
            parameters += [
                Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=ServerOptions.__annotations__[name])
                for name, default in ServerOptions._field_defaults.items()
            ]
        else:
            parameters.append(parameter.replace(kind=Parameter.KEYWORD_ONLY))

    @wraps(command)
    def with_options(**given: Any) -> None:
        server = ServerOptions(**{name: given.pop(name) for name in ServerOptions._fields})
        command(**given, server=server)

    with_options.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def fixed_token(token: str | None, token_file: Path | None) -> str:
    """Return the token for a command that does not log in. Raises CommandError unless exactly one option is given."""
    from factory_logs.client.token_source import NoTokenError, TokenFile

    if token is not None and token_file is None:
        return token
    if token is not None or token_file is None:
        raise CommandError("a token is needed: give one of --token, --token-file and FACTORY_LOGS_TOKEN")
    try:
        return TokenFile(token_file).read()
    except NoTokenError as error:
        raise CommandError(str(error)) from None


def parse_members(option: str, pairs: Sequence[str] | None, *, as_json: bool) -> dict[str, Any] | None:
    """Return the `name=value` pairs of an option as an object, or None if there are no pairs. Raises CommandError."""
    if not pairs:
        return None
    found: dict[str, Any] = {}
    for pair in pairs:
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise CommandError(f"{option} {pair!r} is not like name=value")
        found[name] = json_or_text(value) if as_json else value
    return found


def json_or_text(value: str) -> Any:
    """Return the value of JSON text, or the text itself if it is not JSON."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def check_formats(as_json: bool, as_csv: bool) -> None:
    """Raise CommandError if both formats are chosen."""
    if as_json and as_csv:
        raise CommandError("give one of --json and --csv")

"""What `tail` does: a line for each new log, coloured by whether the unit passed."""

import sys
from typing import Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from factory_logs.cli.reporting import CommandError, tell
from factory_logs.client.credentials import Credentials
from factory_logs.client.tailing import Tail

VERDICTS = {True: ("PASS", "green"), False: ("FAIL", "bold red"), None: ("    ", "default")}


def run_tail(url: str, credentials: Credentials, q: str | None, after: int | None, as_json: bool) -> None:
    """Show new logs until interrupted. Raises TailError."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        logs = Tail(url, credentials, q=q, last_id=after, on_trouble=lambda why: tell(f"{why}; trying again"))
    except ValueError as error:
        raise CommandError(str(error)) from None
    try:
        for log in logs:
            if as_json:
                sys.stdout.buffer.write(orjson.dumps(log, option=orjson.OPT_APPEND_NEWLINE))
                sys.stdout.buffer.flush()
            else:
                console.print(shown(log))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = None
        raise typer.Exit(1) from None


def shown(log: dict[str, Any]) -> Text:
    """One line: when, whether it passed, which app and unit, who and where, what was measured."""
    fields, tags = log["fields"], log["tags"]
    passed = fields.get("passed") if isinstance(fields, dict) else None
    verdict, style = VERDICTS[passed if isinstance(passed, bool) else None]
    line = Text(f"{log['timestamp']:<26} ")
    line.append(f"{verdict} {_visible(log['app_name'])}", style)
    line.append(f" {log['product_imei'] or '-':>15}")
    if tags is not None:
        line.append(f" {_members(tags)}", "cyan")
    if fields is not None:
        measured = (
            {name: value for name, value in fields.items() if name != "passed"} if passed in (True, False) else fields
        )
        line.append(f" {_members(measured)}")
    return line


def _members(value: Any) -> str:
    if not isinstance(value, dict):
        return _json(value)
    return " ".join(
        f"{_visible(name)}={_visible(item) if isinstance(item, str) else _json(item)}" for name, item in value.items()
    )


def _json(value: Any) -> str:
    return orjson.dumps(value).decode()


def _visible(text: str) -> str:
    """Text from anywhere, without what a terminal would obey."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in text)

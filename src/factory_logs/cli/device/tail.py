"""`factory-logs tail`: show new logs as they are stored, one line each, in a colour for the verdict."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.text import Text

from factory_logs.cli.device.options import ServerOptions, with_server_options
from factory_logs.cli.output import CommandError, members_text, print_message, reporting_errors, visible

if TYPE_CHECKING:
    pass

VERDICTS = {True: ("PASS", "green"), False: ("FAIL", "bold red"), None: ("    ", "default")}


@with_server_options
def tail(
    q: Annotated[str | None, typer.Option("--q", help="Only logs that the filters of this q select.")] = None,
    after: Annotated[int | None, typer.Option(help="Begin after this id; 0 for all logs.", show_default="now")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print complete records as NDJSON, for other programs.")] = False,
    *,
    server: ServerOptions,
) -> None:
    """Show new logs as they are stored, green if fields.passed is true and red if it is false."""
    with reporting_errors():
        _tail(server, q, after, json)


def _tail(server: ServerOptions, q: str | None, after: int | None, as_json: bool) -> None:
    """Show new logs until interrupted. Raises CommandError, TailError."""
    from factory_logs.client.tail_stream import TailStream

    console = Console(highlight=False, soft_wrap=True)
    try:
        logs = TailStream(
            server.url,
            server.tokens(),
            q=q,
            last_id=after,
            on_trouble=lambda why: print_message(f"{why}; trying again"),
            ca_file=server.ca_file,
        )
    except ValueError as error:
        raise CommandError(str(error)) from None
    try:
        for log in logs:
            if as_json:
                sys.stdout.buffer.write(orjson.dumps(log, option=orjson.OPT_APPEND_NEWLINE))
                sys.stdout.buffer.flush()
            else:
                console.print(_line(log))
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:  # for example in `| head`
        sys.stdout = None
        raise typer.Exit(1) from None


def _line(log: dict[str, Any]) -> Text:
    """Return one line: the time, the verdict, app and unit, the tags, and the measurements."""
    fields, tags = log["fields"], log["tags"]
    passed = fields.get("passed") if isinstance(fields, dict) else None
    verdict, style = VERDICTS[passed if isinstance(passed, bool) else None]
    line = Text(f"{log['timestamp']:<26} ")
    line.append(f"{verdict} {visible(log['app_name'])}", style)
    line.append(f" {log['product_imei'] or '-':>15}")
    if tags is not None:
        line.append(f" {members_text(tags)}", "cyan")
    if fields is not None:
        measured = (
            {name: value for name, value in fields.items() if name != "passed"} if isinstance(passed, bool) else fields
        )
        line.append(f" {members_text(measured)}")
    return line

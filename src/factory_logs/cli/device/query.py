"""`factory-logs query`: show logs as a table, or write them as NDJSON or CSV."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factory_logs.cli.device.filters import Q, Where, explain_nothing, field_name, selection
from factory_logs.cli.device.options import (
    AsCsv,
    AsJson,
    ServerOptions,
    Wait,
    check_formats,
    with_server_options,
)
from factory_logs.cli.output import (
    CommandError,
    EscapeFormulas,
    ending_with_the_reader,
    print_message,
    print_table,
    reporting_errors,
    shown,
    write_csv,
    write_json,
)

if TYPE_CHECKING:
    from factory_logs.client.read_results import Row

TABLE_COLUMNS = "timestamp,app_name,product_imei,tags,fields"
TABLE_ROWS = 100
STYLES = {True: "green", False: "bold red"}


@with_server_options
def query(
    q: Q = None,
    where: Where = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="The columns, such as timestamp,tags.jig_id,fields.voltage.",
            show_default=f"{TABLE_COLUMNS}; with --json and --csv all",
        ),
    ] = None,
    order: Annotated[
        list[str] | None, typer.Option(help="A field to sort by, such as timestamp or fields.voltage:desc.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="The maximum number of logs; 0 for all.",
            show_default=f"{TABLE_ROWS}; with --json and --csv all",
        ),
    ] = None,
    json: AsJson = False,
    csv: AsCsv = False,
    escape_formulas: EscapeFormulas = False,
    wait: Wait = 30.0,
    *,
    server: ServerOptions,
) -> None:
    """Show the matching logs of a server, ordered by id unless --order is given."""
    with reporting_errors(), ending_with_the_reader():
        check_formats(json, csv)
        asked = selection(q, where) | _order(order)
        names = None if columns is None else [name.strip() for name in columns.split(",")]
        most = limit if limit is not None else asked.get("limit") or TABLE_ROWS
        # Read one log more than the table shows, to know whether there are more.
        more = most + 1 if isinstance(most, int) and most else most
        with server.reader(wait) as reader:
            logs = iter(reader.logs(_limited(asked, limit if json or csv else more)))
            first = list(islice(logs, 1))
            found = chain(first, logs)
            if csv:
                _write_csv(found, names, escape_formulas=escape_formulas)
            elif json:
                _write_json(found, names)
            else:
                _show(found, names, most)
        if not first:
            explain_nothing(server, asked)


def _limited(asked: dict[str, Any], limit: int | None) -> dict[str, Any]:
    return asked if limit is None else asked | {"limit": limit}


def _order(order: Sequence[str] | None) -> dict[str, Any]:
    """Return the order_by of `--order`. Raises CommandError."""
    if not order:
        return {}
    by = []
    for text in order:
        name, _, direction = text.partition(":")
        if direction not in ("", "asc", "desc"):
            raise CommandError(f"--order {text!r} is not like timestamp or timestamp:desc")
        by.append({"field": field_name(name), "direction": direction or "asc"})
    return {"order_by": by}


def _write_csv(logs: "Iterable[Row]", names: Sequence[str] | None, *, escape_formulas: bool) -> None:
    """Write each log as it arrives."""
    from factory_logs.client.read_results import LOG_COLUMNS

    header = names or LOG_COLUMNS
    paths = [_path(name) for name in header]
    rows = ({name: _at(log, path) for name, path in zip(header, paths, strict=True)} for log in logs)
    write_csv(header, rows, escape_formulas=escape_formulas)


def _write_json(logs: "Iterable[Row]", names: Sequence[str] | None) -> None:
    """Write each log as it arrives."""
    paths = [] if names is None else [_path(name) for name in names]
    for log in logs:
        write_json(log if names is None else {name: _at(log, path) for name, path in zip(names, paths, strict=True)})


def _show(logs: "Iterable[Row]", names: Sequence[str] | None, most: int) -> None:
    """Print a table of up to `most` logs, or of all logs if `most` is 0. On a terminal, failed logs are red and passed
    logs are green."""
    from rich.table import Table
    from rich.text import Text

    header = names or TABLE_COLUMNS.split(",")
    paths = [_path(name) for name in header]
    rows = iter(logs)
    table = Table(*header)
    for log in islice(rows, most or None):
        passed = _at(log, ["fields", "passed"])
        style = STYLES.get(passed) if isinstance(passed, bool) else None
        table.add_row(*(Text(shown(_at(log, path))) for path in paths), style=style)
    print_table(table)
    if next(rows, None) is not None:
        print_message(f"There are more than {most} logs: --limit 0 shows all, --csv and --json write all")


def _path(name: str) -> list[str]:
    """Return the path of a column's value in a log. Raises CommandError."""
    from factory_logs.client.read_results import LOG_COLUMNS

    column, *path = field_name(name).split("__")
    if column not in LOG_COLUMNS or (path and column not in ("tags", "fields")) or "" in path:
        raise CommandError(f"no column {name!r}; there are {', '.join(LOG_COLUMNS)}, and tags.NAME and fields.NAME")
    return [column, *path]


def _at(log: Any, path: Sequence[str]) -> Any:
    """Return the value at a path, or None if it is missing."""
    for name in path:
        if not isinstance(log, Mapping) or name not in log:
            return None
        log = log[name]
    return log

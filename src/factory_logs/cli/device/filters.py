"""The filters of the reading commands, `--q` and `--where` (docs/reference/command-line.md#filters), and hints if they
select nothing."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from factory_logs.cli.device.options import ServerOptions, json_or_text
from factory_logs.cli.output import CommandError, print_message
from factory_logs.errors import FactoryLogsError

Q = Annotated[
    str | None, typer.Option("--q", help="Only logs that this q of the API selects, as JSON.", show_default="all")
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        "--where",
        help="A filter such as app_name=tiger, 'fields.voltage>3', tags.jig_id!=J-07, repair_id=null; all given "
        "filters must match. Operators: =, !=, <, <=, >, >=.",
    ),
]
_WHERE = re.compile(r"\s*([^=!<>\s]+)\s*(==|!=|>=|<=|=|>|<)\s*(.*?)\s*", re.DOTALL)
_NUMBERS = frozenset({"factory_log_id", "repair_id", "repair__repair_id", "repair__measured_battery_capacity"})
_NULL = {"==": "is_null", "!=": "is_not_null"}


def selection(q: str | None, where: Sequence[str] | None) -> dict[str, Any]:
    """Return `q` as an object, with the filters of `--where` added. Raises CommandError."""
    try:
        asked = json.loads(q) if q else {}
    except (ValueError, RecursionError) as error:
        raise CommandError(f"--q is not JSON: {error}") from None
    if not isinstance(asked, dict):
        raise CommandError('--q is not a JSON object such as {"filters": []}')
    if where:
        filters = asked.get("filters") or []
        if not isinstance(filters, list):
            raise CommandError("--q: filters is not a list")
        asked["filters"] = [*filters, *map(_filter, where)]
    return asked


def field_name(text: str) -> str:
    """Return a field as the API names it: `fields.battery.voltage` is `fields__battery__voltage`."""
    head, dot, rest = text.partition(".")
    return f"{head}__{rest.replace('.', '__')}" if dot and head in ("tags", "fields", "repair") else text


def _filter(text: str) -> dict[str, Any]:
    match = _WHERE.fullmatch(text)
    if match is None:
        raise CommandError(f"--where {text!r} is not like app_name=tiger or 'fields.voltage>3'")
    name, op = field_name(match[1]), "==" if match[2] == "=" else match[2]
    if match[3] == "null":
        if op not in _NULL:
            raise CommandError(f"--where {text!r}: null can only be compared with = and !=")
        return {"name": name, "op": _NULL[op]}
    return {"name": name, "op": op, "val": _value(name, match[3])}


def _value(name: str, text: str) -> Any:
    """Return the value of a filter. For a JSON path or a number, valid JSON is parsed. For other columns, such as an
    IMEI, the value is text."""
    may_be_json = name in _NUMBERS or name.startswith(("tags__", "fields__")) or text.startswith('"')
    return json_or_text(text) if may_be_json else text


def explain_nothing(server: ServerOptions, q: Mapping[str, Any], names: Iterable[str] = ()) -> None:
    """Print a line for each name that no log has. It asks for the catalog once; without it there are no hints."""
    from factory_logs.client.hints import hints

    try:
        with server.reader(wait_seconds=0) as reader:
            catalog = reader.catalog().body
    except FactoryLogsError:  # for example, the catalog is not complete yet
        return
    for hint in hints(catalog, q, names):
        print_message(f"hint: {hint}")

"""`factory-logs settings`: show the settings that the service would use, and the source of each value."""

import json
import shutil
import textwrap
from typing import TYPE_CHECKING, Annotated, Any

import typer

from factory_logs.cli.environment import is_set, load_settings, variable_name
from factory_logs.cli.output import CommandError, reporting_errors

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from factory_logs.settings import Settings

UNITS = {"_seconds": "seconds", "_bytes": "bytes", "_logs": "logs"}
"""The unit of a setting, by the suffix of its name. If a name has none of these suffixes, the description gives the
unit."""
INDENT = "    "
NARROWEST = 60

HEAD = """\
# Settings

All settings are environment variables. `factory-logs settings` prints them with their current values. This page is the
output of `factory-logs settings --markdown`; a test compares them.

| variable | default | unit | range | meaning |
|---|---|---|---|---|"""
_BOUNDS = (("gt", ">"), ("ge", "≥"), ("le", "≤"), ("lt", "<"))


def show_settings(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for a program.")] = False,
    markdown: Annotated[
        bool, typer.Option(help="Print docs/reference/settings.md, which contains only defaults.")
    ] = False,
) -> None:
    """Show all settings: value, default, unit, and whether the environment sets it."""
    with reporting_errors():
        from factory_logs.settings import Settings

        if as_json and markdown:
            raise CommandError("give either --json or --markdown")
        if markdown:
            typer.echo("\n".join([HEAD, *_lines(Settings)]))
            return
        settings = load_settings()
        typer.echo(json.dumps(_as_json(settings), indent=2) if as_json else "\n\n".join(_as_text(settings)))


def _unit(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def _range(field: "FieldInfo") -> str:
    """Return the bounds of a number, such as `≥ 1, ≤ 50`, or nothing if the setting has no bounds."""
    bounds = ((sign, getattr(each, name, None)) for each in field.metadata for name, sign in _BOUNDS)
    return ", ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)


def _as_json(settings: "Settings") -> dict[str, Any]:
    values = settings.model_dump(mode="json")
    defaults = type(settings).model_construct().model_dump(mode="json")
    return {
        variable_name(name): {
            "value": values[name],
            "default": defaults[name],
            "unit": _unit(name) or None,
            "set_by": "environment" if is_set(name) else "default",
            "description": field.description,
        }
        for name, field in type(settings).model_fields.items()
    }


def _as_text(settings: "Settings") -> list[str]:
    """Return one paragraph for each setting. The value is on one line, independent of the terminal's width."""
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    paragraphs = []
    for name, field in type(settings).model_fields.items():
        value, default, unit = _text(getattr(settings, name)), _text(field.default), _unit(name)
        source = f"environment, default {default or 'none'}" if is_set(name) else "default"
        about = textwrap.wrap(
            field.description or "", width, initial_indent=INDENT, subsequent_indent=INDENT,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
        paragraphs.append("\n".join([f"{variable_name(name)} = {value}{unit and f' {unit}'}  ({source})", *about]))
    return paragraphs


def _lines(settings: "type[Settings]") -> list[str]:
    return [
        f"| `{variable_name(name)}` | {f'`{default}`' if (default := _text(field.default)) else ''} | {_unit(name)} "
        f"| {_range(field)} | {field.description} |"
        for name, field in settings.model_fields.items()
    ]


def _text(value: object) -> str:
    """Return a value as text. Secrets become asterisks, as pydantic shows them."""
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)

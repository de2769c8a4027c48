"""`factory-logs settings`: what the service would run with, and where each value comes from."""

import os
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from factory_logs.cli.reporting import reporting_errors

if TYPE_CHECKING:
    from factory_logs.settings import Settings

PREFIX = "FACTORY_LOGS_"
UNITS = {"_seconds": "seconds", "_bytes": "bytes", "_logs": "logs"}
"""A setting's unit is in its name; where there is none the description says what the value is."""

HEAD = """\
# Settings

All settings are environment variables. `factory-logs settings` prints them with the values they have now. This page is
what `factory-logs settings --markdown` prints; a test keeps it so.

| variable | default | unit | what it is |
|---|---|---|---|"""


def show_settings(
    markdown: Annotated[bool, typer.Option(help="Print docs/settings.md instead: the defaults alone.")] = False,
) -> None:
    """Show all settings: value, default, unit, and whether the environment sets it."""
    with reporting_errors():
        from factory_logs.cli.database import load_settings
        from factory_logs.settings import Settings

        if markdown:
            typer.echo("\n".join([HEAD, *_lines(Settings)]))
            return
        settings = load_settings()
        table = Table("Variable", "Value", "Default", "Unit", "Set by", "What it is", expand=True)
        for name, field in Settings.model_fields.items():
            variable = variable_of(name)
            source = "environment" if variable in {key.upper() for key in os.environ} else "default"
            value, default = _text(getattr(settings, name)), _text(field.default)
            table.add_row(
                variable, escape(value), escape(default), unit_of(name), source, escape(field.description or "")
            )
        Console().print(table)


def variable_of(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def unit_of(name: str) -> str:
    return next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")


def _lines(settings: "type[Settings]") -> list[str]:
    return [
        f"| `{variable_of(name)}` | {f'`{default}`' if (default := _text(field.default)) else ''} | {unit_of(name)} "
        f"| {field.description} |"
        for name, field in settings.model_fields.items()
    ]


def _text(value: object) -> str:
    """A secret is shown as asterisks by its own type."""
    return "" if value is None else str(value)

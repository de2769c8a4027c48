"""The reference pages contain every call, operator, error status and command."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from pydantic import SecretStr

from factory_logs.app import create_app
from factory_logs.cli import app as command_line
from factory_logs.errors import HTTP_STATUS
from factory_logs.permissions import Level
from factory_logs.query.operators import markdown_table
from factory_logs.schemas.factory_log import FactoryLogOut
from factory_logs.schemas.repair import RepairOut
from factory_logs.settings import Settings

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
CONTRACT = (REFERENCE / "http-api.md").read_text()
ALL_PAGES = "\n".join(page.read_text() for page in REFERENCE.glob("*.md"))
COMMANDS = (REFERENCE / "command-line.md").read_text()


def document() -> dict[str, Any]:
    return create_app(Settings(database_url=SecretStr("postgresql://nobody@localhost/nothing"))).openapi()


def commands(group: Any, prefix: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group) or hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def test_every_call_is_in_a_reference_page() -> None:
    for path, operations in document()["paths"].items():
        for method in operations:
            assert re.search(rf"`{method.upper()} {re.escape(path)}[?`]", ALL_PAGES), f"{method.upper()} {path}"


def test_every_query_parameter_of_the_api_is_in_a_reference_page() -> None:
    for path, operations in document()["paths"].items():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if path.startswith("/v1/") and parameter["in"] == "query":
                    assert parameter["name"] in ALL_PAGES, (path, parameter["name"])


def test_the_reference_lists_the_operators_of_the_parser() -> None:
    assert f"\n\n{markdown_table()}\n\n" in CONTRACT


@pytest.mark.parametrize("status", sorted({*HTTP_STATUS.values(), 405, 500}))
def test_every_error_status_is_in_the_reference(status: int) -> None:
    assert f"\n| {status} | " in CONTRACT


def test_every_field_and_level_is_in_the_reference() -> None:
    for name in (*FactoryLogOut.model_fields, *RepairOut.model_fields):
        stem, _, rest = name.partition("_")
        assert f"`{name}`" in CONTRACT or (stem in ("created", "modified") and f"`{stem}_{rest}`" in CONTRACT), name
    for level in Level:
        assert level.value in CONTRACT


def test_every_command_is_in_the_command_line_page() -> None:
    for name in commands(typer.main.get_command(command_line)):
        assert re.search(rf"`{name}[ `]", COMMANDS), f"add `{name}` to docs/reference/command-line.md"

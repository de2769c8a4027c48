"""The environment variables that commands know."""

from collections.abc import Iterator

import typer
from typer.core import TyperGroup

from factory_logs.cli import app
from factory_logs.cli.device.options import OPTION_VARIABLES


def variables(group: TyperGroup) -> Iterator[str]:
    for command in group.commands.values():
        if isinstance(command, TyperGroup):
            yield from variables(command)
        yield from (parameter.envvar for parameter in command.params if isinstance(parameter.envvar, str))


def test_each_variable_of_an_option_is_known() -> None:
    command = typer.main.get_command(app)
    assert isinstance(command, TyperGroup)
    assert set(variables(command)) == set(OPTION_VARIABLES)

"""What applies to all commands."""

from collections.abc import Iterator

import pytest
import typer.main
from typer.core import TyperGroup, TyperOption
from typer.testing import CliRunner

from factory_logs.cli import app


def options(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], TyperOption]]:
    """Yield each option with a value, and the command that it belongs to."""
    if isinstance(command, TyperGroup):
        for name, each in command.commands.items():
            yield from options(each, (*path, name))
        return
    for option in command.params:  # type: ignore[attr-defined]
        if isinstance(option, TyperOption) and not option.is_flag:
            yield path, option


OPTIONS = list(options(typer.main.get_command(app)))
SINGLE = [(path, option.opts[0]) for path, option in OPTIONS if not option.multiple]


def test_each_kind_of_option_is_found() -> None:
    assert (("export",), "--q") in SINGLE
    assert (("tokens", "issue"), "--label") in SINGLE
    assert {option.opts[0] for _, option in OPTIONS if option.multiple} >= {"--where", "--tag-column"}


@pytest.mark.parametrize(
    ("path", "option"), SINGLE, ids=lambda value: value if isinstance(value, str) else "-".join(value)
)
def test_an_option_with_one_value_may_be_given_once(
    path: tuple[str, ...], option: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, [*path, option, "1", f"{option}=2"])
    assert result.exit_code == 2
    assert f"The option {option} is given 2 times; give it once." in result.stderr

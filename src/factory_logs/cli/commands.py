"""The base of all commands: each option may be given once, unless the command accepts it repeatedly."""

from collections.abc import Callable
from typing import Any, TypeVar

import typer
from typer.core import TyperCommand, TyperOption

Function = TypeVar("Function", bound=Callable[..., Any])


class Command(TyperCommand):
    """A command that refuses a repeated option. Otherwise its last value would replace the others silently, for example
    a filter."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        given = self.make_parser(ctx).parse_args(args=list(args))[2]
        for option in given:
            times = given.count(option)
            if times > 1 and isinstance(option, TyperOption) and not option.multiple and not option.is_flag:
                ctx.fail(f"The option {option.opts[0]} is given {times} times; give it once.")
        return super().parse_args(ctx, args)


class Commands(typer.Typer):
    """A group of such commands."""

    def command(self, name: str | None = None, **options: Any) -> Callable[[Function], Function]:
        return super().command(name, cls=Command, **options)

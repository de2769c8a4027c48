"""Values that are not known yet: a statement is built with slots in their places, and they are bound when it runs.

Building a statement of SQLAlchemy and compiling it takes longer than PostgreSQL does to answer it. So a statement is
built once for all questions that differ in their values alone (query/shapes.py), and afterwards it is text and a list.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Dialect, Select

Make = Callable[[Any], Any]
MAX_KEPT_CHARACTERS = 15 * 1024
"""A longer statement is built each time. asyncpg prepares such a one each time as well."""


@dataclass(frozen=True, slots=True)
class Slot:
    """Stands in a statement for `make` of the value of this number; without `make` for that value."""

    number: int
    make: Make | None = None


def derived(value: Any, make: Make) -> Any:
    """`make` of a value; of a slot, one that will hold that."""
    return Slot(value.number, make) if isinstance(value, Slot) else make(value)


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL as asyncpg takes it; of each parameter its slot, or its value where that is always the same."""

    sql: str
    parameters: tuple[Any, ...]

    def bind(self, values: Sequence[Any]) -> list[Any]:
        """The parameters for these values, which the slots name by their numbers."""
        return [
            (values[one.number] if one.make is None else one.make(values[one.number])) if type(one) is Slot else one
            for one in self.parameters
        ]


def compile_statement(statement: Select[Any], dialect: Dialect) -> Statement:
    """`dialect` must be asyncpg's. Types that need Python to convert their values are not for slots."""
    compiled = statement.compile(dialect=dialect)
    return Statement(str(compiled), tuple(compiled.params[name] for name in compiled.positiontup or ()))


class Statements:
    """The statements of one worker by what they answer: the `most` of them that were used last."""

    def __init__(self, dialect: Dialect, most: int) -> None:
        self._dialect = dialect
        self._most = most
        self._kept: OrderedDict[Hashable, Statement] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, name: Hashable, build: Callable[[], Select[Any]]) -> Statement:
        """The statement of this name; `build` gives what it is compiled from."""
        kept = self._kept.get(name)
        if kept is not None:
            self._kept.move_to_end(name)
            return kept
        made = compile_statement(build(), self._dialect)
        if len(made.sql) <= MAX_KEPT_CHARACTERS:
            self._kept[name] = made
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return made

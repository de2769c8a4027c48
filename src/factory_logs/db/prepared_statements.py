"""Statements that are built once and run many times, with placeholders for the values.

SQLAlchemy takes longer to build and compile a statement than PostgreSQL takes to run it. So queries that differ only in
their values share one statement (query/rewriting.py). After it is compiled, a run needs only its text and a list of
values. `python -m benchmarks.reads --only pages` measures pages read in this way.
"""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from cachetools import LRUCache
from sqlalchemy import Dialect, Select

Make = Callable[[Any], Any]
LONGEST_SHARED = 15 * 1024
"""The maximum length of a shared statement in characters. A longer statement is built each time, and asyncpg prepares
it."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """The placeholder for the value with this number; if `make` is given, for the result of `make(value)`."""

    number: int
    make: Make | None = None


def derived(value: Any, make: Make) -> Any:
    """Return `make(value)`; for a placeholder, return a placeholder that applies `make` to its value."""
    return Placeholder(value.number, make) if isinstance(value, Placeholder) else make(value)


@dataclass(frozen=True, slots=True)
class PreparedStatement:
    """SQL in the form that asyncpg takes. A parameter is a placeholder, or a constant."""

    sql: str
    parameters: tuple[Any, ...]

    def bind(self, values: Sequence[Any]) -> list[Any]:
        """Return the parameters with each placeholder replaced by its value."""
        return [
            (values[one.number] if one.make is None else one.make(values[one.number]))
            if type(one) is Placeholder
            else one
            for one in self.parameters
        ]


def compile_statement(statement: Select[Any], dialect: Dialect) -> PreparedStatement:
    """Return the statement as text and parameters.

    `dialect` must be asyncpg's. A placeholder cannot have a type whose values Python must convert.
    """
    compiled = statement.compile(dialect=dialect)
    return PreparedStatement(str(compiled), tuple(compiled.params[name] for name in compiled.positiontup or ()))


class PreparedStatements:
    """The compiled statements of one worker. Only the `most` recently used ones are cached."""

    def __init__(self, dialect: Dialect, most: int) -> None:
        self._dialect = dialect
        self._statements: LRUCache[Hashable, PreparedStatement] = LRUCache(most)

    def __len__(self) -> int:
        return len(self._statements)

    def get(self, name: Hashable, build: Callable[[], Select[Any]]) -> PreparedStatement:
        """Return the statement with this name. If there is none, compile and cache the result of `build`."""
        known = self._statements.get(name)
        if known is not None:
            return known
        compiled = compile_statement(build(), self._dialect)
        if len(compiled.sql) <= LONGEST_SHARED:
            self._statements[name] = compiled
        return compiled

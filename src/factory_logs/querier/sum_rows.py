"""Read the rows of a sum, and correct known rows for other ids or another time range.

Only the logs that one of the two covers and the other does not are read (querier/sums.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Row, Select, any_, case, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.aggregates import LOGS
from factory_logs.db.models import TIME
from factory_logs.querier.aggregates import log_value, shown
from factory_logs.querier.sum_definitions import Conditions, Summed
from factory_logs.querier.sum_tables import Key, Numbers, Table, add_numbers
from factory_logs.query.compiler import SQL_TYPES
from factory_logs.query.rewriting import TimeRange

MOST_UNITS = 2_000
"""If more units than this have new logs, the sum is computed again from all logs."""
INDEXED_UNITS = frozenset({"product_imei", "repair_id", "factory_log_id"})


class TooManyRowsError(Exception):
    """A sum has more rows than allowed."""


class LogRange(NamedTuple):
    """A set of logs, limited by time and id: ids above `above`, up to `up_to`. None means no bound."""

    range: TimeRange
    above: int | None = None
    up_to: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.range.begin is not None:
            found.append(LOGS.c.timestamp >= literal(self.range.begin, TIME))
        if self.range.end is not None:
            found.append(LOGS.c.timestamp < literal(self.range.end, TIME))
        if self.above is not None:
            found.append(LOGS.c.factory_log_id > literal(self.above, BigInteger))
        if self.up_to is not None:
            found.append(LOGS.c.factory_log_id <= literal(self.up_to, BigInteger))
        return found


@dataclass(frozen=True, slots=True)
class SumReader:
    """Reads the rows of one sum. `filters` contains the filters of the query except those on `timestamp`."""

    connection: AsyncConnection
    summed: Summed
    filters: Conditions
    most: int

    async def rows(self, logs: LogRange, *more: ColumnElement[bool], unlike: Table | None = None) -> Table:
        """Return the rows over these logs, or only the rows that another table does not contain. Raises
        TooManyRowsError."""
        conditions = [*self.filters, *logs.conditions(), *more]
        if self.summed.read_unlike is not None and unlike:
            found = await self.summed.read_unlike(self.connection, conditions, self.most, unlike)
        else:
            found = await self.summed.read(self.connection, conditions, self.most)
        if len(found) > self.most:
            raise TooManyRowsError
        keys = self.summed.keys
        table: dict[Key, Numbers] = {}
        for row in found:
            if any(row[keys:]):
                self._add(table, self._key(row[:keys]), tuple(map(shown, row[keys:])), 1)
        return table

    def _key(self, values: Sequence[Any]) -> Key:
        if self.summed.bins is None:
            return self.summed.as_key(values)
        return (*self.summed.as_key(values[:-1]), values[-1])

    async def changed(self, table: Table, before: LogRange, after: LogRange) -> Table | None:
        """Return the table for the logs `after`, computed from the table for the logs `before`, or None if this would
        read all logs.

        Raises TooManyRowsError.
        """
        added = [LogRange(after.range, before.up_to, after.up_to)] if before.up_to != after.up_to else []
        added += [LogRange(part, up_to=before.up_to) for part in after.range.without(before.range)]
        removed = [LogRange(part, up_to=before.up_to) for part in before.range.without(after.range)]
        if self.summed.unit is None:
            if removed and not self.summed.can_subtract:
                return None
            changes = [(await self.rows(logs, unlike=table), 1) for logs in added]
            changes += [(await self.rows(logs), -1) for logs in removed]
        else:
            found = await self._changes_of_units(before, after, added, removed)
            if found is None:
                return None
            changes = found
        return self.merged(table, changes)

    def merged(self, table: Table, changes: Sequence[tuple[Table, int]]) -> Table:
        """Return the table with the rows of other tables added; they are subtracted if the sign is -1."""
        if not any(of_logs for of_logs, _ in changes):
            return table
        result = dict(table)
        for of_logs, sign in changes:
            for key, numbers in of_logs.items():
                self._add(result, key, numbers, sign)
        result = {key: numbers for key, numbers in result.items() if any(numbers)}
        return table if result == table else result

    async def _changes_of_units(
        self, before: LogRange, after: LogRange, added: Sequence[LogRange], removed: Sequence[LogRange]
    ) -> list[tuple[Table, int]] | None:
        field = self.summed.unit
        assert field is not None  # noqa: S101 - the caller has looked
        unit = log_value(field)
        has_index = field.column in INDEXED_UNITS and field.relation is None
        units: set[Any] = set()
        changes: list[tuple[Table, int]] = []
        for logs, sign in [(logs, 1) for logs in added] + [(logs, -1) for logs in removed]:
            found = await self._distinct(logs, unit if has_index else case((unit.is_not(None), True)))
            if None in found:
                changes.append((await self.rows(logs, unit.is_(None)), sign))
            units |= found - {None}
            if len(units) > MOST_UNITS or (units and not has_index):
                return None
        if units:
            of_these = unit == any_(literal(sorted(units), ARRAY(SQL_TYPES[field.kind])))
            changes += [(await self.rows(before, of_these), -1), (await self.rows(after, of_these), 1)]
        return changes

    async def _distinct(self, logs: LogRange, value: ColumnElement[Any]) -> set[Any]:
        """Return the distinct units of these logs, including null, but at most one more than are useful."""
        conditions = [*self.filters, *self.summed.relevant, *logs.conditions()]
        found = select(value).select_from(LOGS).where(*conditions).distinct().limit(MOST_UNITS + 2)
        return set((await self.connection.execute(found)).scalars())

    def _add(self, table: dict[Key, Numbers], key: Key, numbers: Numbers, sign: int) -> None:
        add_numbers(table, key, numbers, sign, self.summed.least, self.summed.greatest)


async def fetched(connection: AsyncConnection, statement: Select[Any], most: int) -> Sequence[Row[Any]]:
    """Return the rows of a statement, but at most one more than `most`."""
    rows: Sequence[Row[Any]] = (await connection.execute(statement.limit(most + 1))).all()
    return rows

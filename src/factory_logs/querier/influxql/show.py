"""Run SHOW statements, which list names and values."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Row, Select, Text, func, literal, select
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.influxql.ast import Expression, KeyCondition, Measurement, Show, Shown
from factory_logs.influxql.constants import EARLIEST, LATEST, Context, TimeSpan, split_time
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.evaluation import Value
from factory_logs.influxql.regexes import matches
from factory_logs.influxql.resolving import matching_measurements, typed_condition
from factory_logs.influxql.schema import LOGS, Schema, tag_text
from factory_logs.influxql.selection import Source, series_rows
from factory_logs.influxql.series import ResultSeries
from factory_logs.querier.influxql.catalog import InfluxqlCatalog, are_in_tags, series_in
from factory_logs.querier.sum_definitions import Conditions, Summed
from factory_logs.querier.sum_rows import TooManyRowsError, fetched
from factory_logs.querier.sums import SumsOfSnapshot
from factory_logs.query import Query

DATABASE = "factory_logs"
"""The name of the only database; clients may use any name."""
POLICY: list[Value] = ["autogen", "0s", "168h0m0s", 1, True]
"""The only retention policy, as in a new database of InfluxDB."""
_FIXED: dict[Shown, ResultSeries] = {
    Shown.DATABASES: ResultSeries("databases", ["name"], [[DATABASE]]),
    Shown.RETENTION_POLICIES: ResultSeries(
        "", ["name", "duration", "shardGroupDuration", "replicaN", "default"], [POLICY]
    ),
    Shown.USERS: ResultSeries("", ["user", "admin"]),
    Shown.QUERIES: ResultSeries("", ["qid", "query", "database", "duration"]),
    Shown.CONTINUOUS_QUERIES: ResultSeries(DATABASE, ["name", "query"]),
}
WITHOUT_DATABASE = frozenset({Shown.DATABASES, Shown.USERS, Shown.QUERIES, Shown.CONTINUOUS_QUERIES})


def fixed_result(show: Show) -> list[ResultSeries] | None:
    """Return the result of a statement that does not depend on logs; None for other statements."""
    return [_FIXED[show.shown]] if show.shown in _FIXED else None


class Showing:
    """Runs one SHOW statement in one snapshot."""

    def __init__(
        self, snapshot: SumsOfSnapshot, catalog: InfluxqlCatalog, schema: Schema, context: Context, most: int
    ) -> None:
        self._snapshot = snapshot
        self._catalog = catalog
        self._connection = snapshot.connection
        self._schema = schema
        self._context = context
        self._most = most

    async def result(self, show: Show) -> list[ResultSeries]:
        """Return the series of the result. Raises InfluxqlError."""
        condition, span = split_time(show.condition, self._context)
        sources = show.sources if show.with_measurement is None else (show.with_measurement,)
        names = self._measurements(sources)
        match show.shown:
            case Shown.MEASUREMENTS:
                return await self._show_measurements(show, names, condition)
            case Shown.FIELD_KEYS:
                return self._field_keys(show, names)
            case Shown.TAG_KEYS:
                return await self._tag_keys(show, names, condition, span)
            case Shown.TAG_VALUES:
                return await self._tag_values(show, names, condition, span)
            case Shown.SERIES:
                keys: list[str] = []
                for name in names:
                    keys += await self._series_keys(name, condition, span)
                    self._checked(keys)
                rows = [[key] for key in _limited(show, keys)]
                return [ResultSeries("", ["key"], rows)] if rows else []
        return await self._cardinality(show, names, condition, span)

    def _measurements(self, sources: Sequence[Measurement]) -> list[str]:
        if not sources:
            return list(self._schema)
        return sorted({name for source in sources for name in matching_measurements(source, self._schema)})

    def _source(self, name: str, condition: Expression | None, span: TimeSpan, tags: Sequence[str] = ()) -> Source:
        measurement = self._schema[name]
        first = EARLIEST if span.first is None else max(EARLIEST, span.first)
        last = LATEST if span.last is None else min(LATEST, span.last)
        typed = None if condition is None else typed_condition(condition, measurement)
        return Source(name, measurement, typed, first, last, tuple(tags))

    async def _show_measurements(
        self, show: Show, names: list[str], condition: Expression | None
    ) -> list[ResultSeries]:
        if show.condition is not None and condition is None:
            raise InfluxqlError("SHOW MEASUREMENTS doesn't support time in WHERE clause")
        if condition is not None:
            names = [name for name in names if await self._exists(self._source(name, condition, TimeSpan()))]
        rows: list[list[Any]] = [[name] for name in _limited(show, names)]
        return [ResultSeries("measurements", ["name"], rows)] if rows else []

    async def _exists(self, source: Source) -> bool:
        found = select(literal(1)).select_from(LOGS).where(*source.conditions(), *source.times()).limit(1)
        return (await self._connection.execute(found)).first() is not None

    def _field_keys(self, show: Show, names: list[str]) -> list[ResultSeries]:
        found = []
        for name in names:
            fields = self._schema[name].fields
            keys = sorted([key, kind.value] for key, field in fields.items() for kind in field.types)
            rows: list[list[Any]] = [list(key) for key in _limited(show, keys)]
            if rows:
                found.append(ResultSeries(name, ["fieldKey", "fieldType"], rows))
        return found

    async def _tag_keys(
        self, show: Show, names: list[str], condition: Expression | None, span: TimeSpan
    ) -> list[ResultSeries]:
        found = []
        for name in names:
            keys = sorted(self._schema[name].tags)
            if show.condition is not None and keys:
                keys = await self._present(self._source(name, condition, span), keys)
            rows: list[list[Any]] = [[key] for key in _limited(show, keys)]
            if rows:
                found.append(ResultSeries(name, ["tagKey"], rows))
        return found

    async def _present(self, source: Source, keys: list[str]) -> list[str]:
        """Return the tags that occur in the matching logs."""
        counts = [func.count(tag_text(source.measurement, key)) for key in keys]
        row = (await self._connection.execute(select(*counts).where(*source.conditions(), *source.times()))).one()
        return [key for key, count in zip(keys, row, strict=True) if count]

    async def _tag_values(
        self, show: Show, names: list[str], condition: Expression | None, span: TimeSpan
    ) -> list[ResultSeries]:
        found, listed = [], 0
        for name in names:
            pairs: list[list[Any]] = []
            for key in sorted(self._schema[name].tags):
                if show.key is not None and is_wanted(show.key, key):
                    values = await self._values(self._source(name, condition, span), key)
                    pairs += [[key, value] for value in values]
                    listed += len(values)
                    if listed > self._most:
                        raise self._too_many()
            rows = _limited(show, pairs)
            if rows:
                found.append(ResultSeries(name, ["key", "value"], rows))
        return found

    async def _values(self, source: Source, key: str) -> list[str]:
        """Return the values of a tag. The values over all time are cached up to the watermark."""
        is_all_time = (source.first, source.last) == (EARLIEST, LATEST)
        if is_all_time and source.condition is None and are_in_tags([key]):
            tag_sets = await self._catalog.tag_sets(self._snapshot)
            if tag_sets is not None:
                found = series_in(tag_sets.get(source.name, ()), source.measurement, [key])
                return sorted(value for (value,) in self._checked(list(found)) if value)
        value = tag_text(source.measurement, key)

        async def read(connection: AsyncConnection, conditions: Conditions, most: int) -> Sequence[Row[Any]]:
            values = (
                select(value.label("value"))
                .where(*source.conditions(), *conditions, value.is_not(None), value != literal("", Text))
                .subquery()
            )
            return await fetched(connection, select(values.c.value, func.count()).group_by(values.c.value), most)

        if not is_all_time:
            rows = await read(self._connection, source.times(), self._most)
            return sorted(row[0] for row in self._checked(rows))
        name = repr(("influxql tag values", source.name, key, source.condition, source.locations([key])))
        try:
            table = await self._snapshot.table(Summed(name, Query(), 1, read), self._most)
        except TooManyRowsError:
            raise self._too_many() from None
        return sorted(orjson.loads(text) for (text,) in table)

    async def _series_keys(self, name: str, condition: Expression | None, span: TimeSpan) -> list[str]:
        tags = sorted(self._schema[name].tags)
        source = self._source(name, condition, span, tags)
        if not tags:
            return [_series_key(name, {})] if await self._exists(source) else []
        rows = await self._rows(series_rows(source, self._most + 1))
        found = [{tag: value for tag, value in zip(tags, row, strict=True) if value} for row in rows]
        # InfluxDB sorts by the key before its characters are escaped.
        found.sort(key=lambda pairs: ",".join(f"{tag}={value}" for tag, value in pairs.items()).encode())
        return [_series_key(name, pairs) for pairs in found]

    async def _rows(self, statement: Select[Any]) -> Sequence[Any]:
        return self._checked((await self._connection.execute(statement)).all())

    def _checked(self, rows: Sequence[Any]) -> Sequence[Any]:
        if len(rows) > self._most:
            raise self._too_many()
        return rows

    def _too_many(self) -> InfluxqlError:
        return InfluxqlError(f"the statement lists more than {self._most} values: use FROM, or conditions in WHERE")

    async def _cardinality(
        self, show: Show, names: list[str], condition: Expression | None, span: TimeSpan
    ) -> list[ResultSeries]:
        counts = {name: await self._count(show, name, condition, span) for name in names}
        is_estimate = not (show.exact or show.sources or show.condition or show.dimensions or show.limit or show.offset)
        if show.shown is Shown.MEASUREMENT_CARDINALITY:
            column = "cardinality estimation" if is_estimate else "count"
            return [ResultSeries("", [column], [[len(names)]])]
        if show.shown is Shown.SERIES_CARDINALITY and is_estimate:
            return [ResultSeries("", ["cardinality estimation"], [[sum(counts.values())]])]
        return [ResultSeries(name, ["count"], [[count]]) for name, count in counts.items() if count]

    async def _count(self, show: Show, name: str, condition: Expression | None, span: TimeSpan) -> int:
        measurement = self._schema[name]
        match show.shown:
            case Shown.SERIES_CARDINALITY:
                return len(await self._series_keys(name, condition, span))
            case Shown.FIELD_KEY_CARDINALITY:
                return len(measurement.fields)
            case Shown.TAG_KEY_CARDINALITY:
                return len(measurement.tags)
            case Shown.TAG_VALUES_CARDINALITY if show.key is not None:
                keys = [key for key in measurement.tags if is_wanted(show.key, key)]
                found = [await self._values(self._source(name, condition, span), key) for key in keys]
                return len({value for values in found for value in values})
        return 0


def is_wanted(key: KeyCondition, name: str) -> bool:
    """Return whether WITH KEY includes a tag."""
    if key.regex is not None:
        return matches(key.regex.pattern, name) is (key.operator == "=~")
    return (name in key.names) is (key.operator != "!=")


def _limited(show: Show, found: list[Any]) -> list[Any]:
    end = show.offset + show.limit if show.limit else None
    return found[show.offset : end]


def _series_key(name: str, tags: dict[str, str]) -> str:
    parts = [_escaped(name, ", ")]
    parts += [f"{_escaped(key, ',= ')}={_escaped(value, ',= ')}" for key, value in tags.items()]
    return ",".join(parts)


def _escaped(text: str, characters: str) -> str:
    for character in characters:
        text = text.replace(character, f"\\{character}")
    return text

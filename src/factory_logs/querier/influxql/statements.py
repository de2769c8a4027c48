"""Run the statements of a query in turn, each in its own snapshot."""

from collections.abc import AsyncIterator, Sequence
from zoneinfo import ZoneInfo

from sqlalchemy.exc import DBAPIError

from factory_logs.errors import QueryTooLongError
from factory_logs.influxql.ast import UNDIVIDED, Call, CreateDatabase, Explain, Refused, Select, Show, Statement, nodes
from factory_logs.influxql.checking import check
from factory_logs.influxql.constants import Context
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.evaluation import Value
from factory_logs.influxql.resolving import ResolveLimits, resolve
from factory_logs.influxql.series import Result, ResultSeries
from factory_logs.querier.influxql.catalog import InfluxqlCatalog
from factory_logs.querier.influxql.plans import Plan, top_plan
from factory_logs.querier.influxql.points import PointLimits, PointReader
from factory_logs.querier.influxql.rows import RowSeries
from factory_logs.querier.influxql.select import Selecting
from factory_logs.querier.influxql.show import WITHOUT_DATABASE, Showing, fixed_result
from factory_logs.querier.sums import Sums, SumsOfSnapshot
from factory_logs.settings import Settings

NOT_EXECUTED = "not executed"
DATABASE_REQUIRED = "database name required"
_UNUSABLE_VALUES = ("22", "54")
"""The SQLSTATE classes of errors for values that PostgreSQL cannot compute with, and for patterns that are too
complex."""


class InfluxqlQueries:
    """Runs InfluxQL queries within the limits of the settings."""

    def __init__(self, sums: Sums, settings: Settings) -> None:
        self._sums = sums
        self._catalog = InfluxqlCatalog(settings)
        self._settings = settings

    async def results(self, statements: Sequence[Statement], database: str, now: int) -> AsyncIterator[Result]:
        """Yield the result of each statement. If one fails, the statements after it are not run.

        `now` is in nanoseconds. Raises OverloadedError, DatabaseUnavailableError.
        """
        for number, statement in enumerate(statements):
            try:
                is_divided = not (isinstance(statement, Show) and statement.shown in UNDIVIDED)
                yield Result(number, await self._series(statement, database, now), is_divided=is_divided)
            except InfluxqlError as error:
                yield Result(number, error=error.message)
                for left in range(number + 1, len(statements)):
                    yield Result(left, error=NOT_EXECUTED)
                return

    async def _series(self, statement: Statement, database: str, now: int) -> list[ResultSeries]:
        match statement:
            case CreateDatabase():
                return []
            case Refused(name):
                raise InfluxqlError(f"{name} is not supported")
            case Explain():
                raise InfluxqlError("EXPLAIN is not supported")
            case Show():
                if not database and not statement.database and statement.shown not in WITHOUT_DATABASE:
                    raise InfluxqlError(DATABASE_REQUIRED)
                fixed = fixed_result(statement)
                return fixed if fixed is not None else await self._read(statement, now)
        if not database and not _names_database(statement):
            raise InfluxqlError(DATABASE_REQUIRED)
        return await self._read(statement, now)

    async def _read(self, statement: Show | Select, now: int) -> list[ResultSeries]:
        try:
            if may_be_known(statement):
                return await self._sums.read(lambda snapshot: self._read_in(snapshot, statement, now))
            async with self._sums.snapshot() as snapshot:
                return await self._read_in(snapshot, statement, now)
        except QueryTooLongError as error:
            advice = "use a shorter time range, fewer tags in GROUP BY, or more conditions in WHERE"
            raise InfluxqlError(error.with_advice(advice).message) from error
        except DBAPIError as error:
            state = getattr(error.orig, "sqlstate", None) or ""
            if not state.startswith(_UNUSABLE_VALUES):
                raise
            raise InfluxqlError(f"the database cannot compute this: {error.orig}") from error

    async def _read_in(self, snapshot: SumsOfSnapshot, statement: Show | Select, now: int) -> list[ResultSeries]:
        if isinstance(statement, Show):
            schema = await self._catalog.schema(snapshot)
            most = self._settings.max_influxql_series
            return await Showing(snapshot, self._catalog, schema, Context(now), most).result(statement)
        checked = check(statement, Context(now))
        schema = await self._catalog.schema(snapshot)
        limits = ResolveLimits(self._settings.max_influxql_measurements, self._settings.max_influxql_columns)
        plan = top_plan(resolve(checked, schema, limits), now, self._settings.max_influxql_buckets)
        reader = PointReader(snapshot, self._catalog, schema, PointLimits.of(self._settings))
        return _as_result(plan, await Selecting(reader, now).rows(plan), self._settings)


def may_be_known(statement: Show | Select) -> bool:
    """Return whether cached sums may contain the whole result. The result of a query for raw points is never known."""
    if isinstance(statement, Show):
        return True
    return any(isinstance(node, Call) for field in statement.fields for node in nodes(field.expression))


def _names_database(select: Select) -> bool:
    return all(
        _names_database(source) if isinstance(source, Select) else bool(source.database) for source in select.sources
    )


def _as_result(plan: Plan, found: Sequence[RowSeries], settings: Settings) -> list[ResultSeries]:
    resolved = plan.resolved
    zone = None if resolved.checked.select.zone is None else ZoneInfo(resolved.checked.select.zone)
    columns = [resolved.checked.time_name, *resolved.columns]
    rows = sum(len(series.rows) for series in found)
    if rows > settings.max_influxql_rows:
        raise InfluxqlError(
            f"the statement returns {rows} rows; the limit is {settings.max_influxql_rows}: use a shorter time range, "
            "a longer GROUP BY time(), or LIMIT"
        )
    result = []
    for series in found:
        tags = dict(zip(plan.dimensions, series.tags, strict=True))
        values: list[list[Value]] = [[time, *row] for time, row in series.rows]
        result.append(ResultSeries(series.name, columns, values, tags, has_time=True, zone=zone))
    return result

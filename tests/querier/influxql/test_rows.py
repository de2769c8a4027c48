"""The rows of a SELECT statement."""

from factory_logs.influxql.ast import Reference, Select, Type
from factory_logs.influxql.bound_parameters import NONE
from factory_logs.influxql.checking import check
from factory_logs.influxql.constants import Context
from factory_logs.influxql.parser import parse_query
from factory_logs.influxql.resolving import ResolveLimits, resolve
from factory_logs.influxql.schema import FieldKey, MeasurementSchema
from factory_logs.influxql.series import PointSeries, Stream
from factory_logs.querier.influxql.columns import Columns
from factory_logs.querier.influxql.plans import Plan, top_plan
from factory_logs.querier.influxql.rows import as_rows

COLUMNS, SERIES = 100, 50


class Name(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Name.comparisons += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def plan(statement: str) -> Plan:
    schema = {"tiger": MeasurementSchema({"v": FieldKey({Type.INTEGER}, [("v",)])}, {"jig": [("jig",)]})}
    (select,) = parse_query(statement, NONE)
    assert isinstance(select, Select)
    return top_plan(resolve(check(select, Context(0)), schema, ResolveLimits()), 0, 1000)


def test_the_columns_of_each_series_are_not_compared_with_each_other() -> None:
    """With hundreds of columns and of series, the comparisons took seconds, in which the worker served no request."""
    references = tuple(Reference(Name(f"field {number}"), Type.INTEGER) for number in range(COLUMNS))
    values = tuple(range(COLUMNS))
    series = [PointSeries("tiger", (f"J-{number}",), [0], [], [values]) for number in range(SERIES)]
    columns = Columns(references, (), references)
    Name.comparisons = 0
    found = as_rows(plan("SELECT v FROM tiger GROUP BY jig"), columns, (), [Stream(None, series)])
    assert [each.rows for each in found] == [[(0, list(values))]] * SERIES
    assert Name.comparisons <= COLUMNS * SERIES

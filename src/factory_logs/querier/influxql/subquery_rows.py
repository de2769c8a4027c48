"""Read the rows of a subquery as points of the outer statement."""

from collections.abc import Sequence

from factory_logs.influxql.ast import Expression, Reference, nodes
from factory_logs.influxql.evaluation import Value, evaluate
from factory_logs.influxql.filling import cast_value
from factory_logs.influxql.regexes import matches
from factory_logs.influxql.series import Others, PointSeries
from factory_logs.querier.influxql.plans import Plan
from factory_logs.querier.influxql.rows import RowSeries


class SubqueryColumns:
    """Looks up names of the outer statement in the rows of a subquery."""

    def __init__(self, plan: Plan) -> None:
        resolved = plan.resolved
        self._column_indexes = {name: index for index, name in reversed(list(enumerate(resolved.columns)))}
        self._tags = {name: index for index, name in enumerate(plan.dimensions) if name in resolved.dimensions}
        self._all_tags = {name: index for index, name in enumerate(plan.dimensions)}

    def has(self, reference: Reference) -> bool:
        return reference.name in self._column_indexes or reference.name in self._tags

    def value(self, reference: Reference, series: RowSeries, row: Sequence[Value]) -> Value:
        if reference.name in self._column_indexes:
            return cast_value(row[self._column_indexes[reference.name]], reference.type)
        if reference.name in self._tags:
            return series.tags[self._tags[reference.name]]
        return None

    def meets(self, condition: Expression, series: RowSeries, row: Sequence[Value]) -> bool:
        """Return whether a row meets the condition of the outer statement."""
        values: dict[Expression, Value] = {}
        for node in nodes(condition):
            if isinstance(node, Reference):
                value = self.value(node, series, row)
                if value is None and node.name in self._all_tags and node.name not in self._column_indexes:
                    value = series.tags[self._all_tags[node.name]]
                if value is None and node.name not in self._column_indexes:
                    value = ""
                values[node] = value
        return evaluate(condition, values, divide_exactly=False, matches=matches) is True


def as_series(
    key: tuple[str, tuple[str, ...]], points: list[tuple[int, Value, Others]], inner: Plan, *, is_sorted: bool
) -> PointSeries:
    if is_sorted or inner.windows.interval:
        points.sort(key=lambda point: point[0], reverse=inner.descending)
    series = PointSeries(*key)
    for time, value, others in points:
        series.add(time, value, others)
    return series

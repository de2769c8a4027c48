"""Plan SELECT statements. A plan contains the properties that a statement passes to its subqueries: time span, windows,
dimensions and limits."""

from dataclasses import dataclass, replace
from zoneinfo import ZoneInfo

from factory_logs.influxql.ast import Fill
from factory_logs.influxql.constants import EARLIEST, LATEST
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.filling import Filling
from factory_logs.influxql.resolving import Resolved
from factory_logs.influxql.windows import Windows


@dataclass(frozen=True, slots=True)
class Plan:
    """A SELECT statement that is ready to run, as a whole statement or as a subquery.

    `dimensions` contains the tags that distinguish its series, in the order of their names: the dimensions of the
    statement and those of the outer statement. A limit of 0 means no limit. SLIMIT and SOFFSET count series by
    `limited_by`, the dimensions of the whole statement, also in a subquery.
    """

    resolved: Resolved
    windows: Windows
    dimensions: tuple[str, ...]
    descending: bool
    filling: Filling
    limit: int
    offset: int
    series_limit: int
    series_offset: int
    limited_by: tuple[str, ...]

    def earlier(self) -> "Plan":
        """Return the plan with one more window before its span, or after it if the order is descending.

        A subquery that has the windows of the outer statement keeps its span.
        """
        if not self.resolved.checked.interval:
            return self
        windows, interval = self.windows, self.windows.interval
        if self.descending:
            return replace(self, windows=replace(windows, last=min(LATEST, windows.last + interval)))
        return replace(self, windows=replace(windows, first=max(EARLIEST, windows.first - interval)))

    def of_all_series(self) -> "Plan":
        """Return the plan without SLIMIT and SOFFSET."""
        return replace(self, series_limit=0, series_offset=0)

    def grouped_by(self, dimensions: tuple[str, ...]) -> "Plan":
        """Return the plan with other dimensions."""
        return replace(self, dimensions=tuple(sorted(dimensions)))


def top_plan(resolved: Resolved, now: int, most_buckets: int) -> Plan:
    """Return the plan of a whole statement. Raises InfluxqlError for more than `most_buckets` time buckets."""
    checked, select = resolved.checked, resolved.checked.select
    first = EARLIEST if checked.span.first is None else max(EARLIEST, checked.span.first)
    default = now if checked.interval else LATEST
    last = default if checked.span.last is None else min(LATEST, checked.span.last)
    plan = Plan(
        resolved,
        Windows(first, last, checked.interval, checked.offset, _zone(select.zone)),
        tuple(sorted(set(resolved.dimensions))),
        select.descending,
        Filling(select.fill, select.fill_value),
        select.limit,
        select.offset,
        select.series_limit,
        select.series_offset,
        tuple(sorted(set(resolved.dimensions))),
    )
    if checked.interval and first > EARLIEST and not resolved.is_raw:
        _check_buckets(plan.windows, most_buckets)
    return plan


def _check_buckets(windows: Windows, most: int) -> None:
    span = windows.start(windows.last) - windows.start(windows.first) + windows.interval
    buckets = span // windows.interval
    if buckets > most:
        raise InfluxqlError(
            f"max-select-buckets limit exceeded: ({buckets}/{most}): use a longer GROUP BY time() or a shorter time "
            "range"
        )


def subquery_plan(resolved: Resolved, outer: Plan, now: int) -> Plan:
    """Return the plan of a subquery.

    Its span lies within the span of the outer statement, and its dimensions include those of the outer statement.
    """
    checked, select = resolved.checked, resolved.checked.select
    first = outer.windows.first if checked.span.first is None else max(outer.windows.first, checked.span.first)
    last = outer.windows.last if checked.span.last is None else min(outer.windows.last, checked.span.last)
    if checked.interval:
        if last == LATEST:
            last = now
        interval, offset = checked.interval, checked.offset
    else:
        interval, offset = outer.windows.interval, outer.windows.offset
    fill = Fill.NONE if select.fill is Fill.NULL and not resolved.is_raw else select.fill
    return Plan(
        resolved,
        Windows(first, last, interval, offset, _zone(select.zone)),
        tuple(sorted({*resolved.dimensions, *outer.dimensions})),
        outer.descending,
        Filling(fill, select.fill_value),
        select.limit,
        select.offset,
        select.series_limit + outer.series_limit,
        select.series_offset + outer.series_offset,
        outer.limited_by,
    )


def _zone(name: str | None) -> ZoneInfo | None:
    return None if name is None else ZoneInfo(name)

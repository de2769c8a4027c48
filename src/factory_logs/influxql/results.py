"""The results of statements, before they become JSON or CSV."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from factory_logs.influxql.evaluation import Value


@dataclass(slots=True)
class ResultSeries:
    """A table in a result. If `has_time`, the first column is a time in nanoseconds, to be shown in `zone`."""

    name: str
    columns: Sequence[str]
    rows: list[list[Value]] = field(default_factory=list)
    tags: Mapping[str, str] = field(default_factory=dict)
    has_time: bool = False
    zone: ZoneInfo | None = None


@dataclass(slots=True)
class Result:
    """The result of one statement: series, or an error."""

    statement_id: int
    series: list[ResultSeries] = field(default_factory=list)
    error: str | None = None

"""The results of a Reader: rows like those of CSV responses, and a pandas DataFrame if pandas is installed."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from factory_logs.client.errors import PandasMissingError
from factory_logs.schemas.factory_log import FactoryLogOut
from factory_logs.schemas.results import Distribution, Failure, Measures, UnitApp, YieldCounts

if TYPE_CHECKING:
    import pandas

Row = dict[str, Any]

LOG_COLUMNS = tuple(FactoryLogOut.model_fields)
LOG_TIMES = ("timestamp", "created_at", "modified_at")
_MEASURES = tuple(Measures.model_fields)
_YIELD_COUNTS = tuple(YieldCounts.model_fields)
_DISTRIBUTION = tuple(Distribution.model_fields)
_FAILURE = tuple(Failure.model_fields)
_UNIT_APP = tuple(UnitApp.model_fields)
_FACET = ("field", "value", "count")
_CATALOG = ("app_name", "logs", "first", "last", "path", "types")


class ResultRows(Sequence[Row]):
    """The rows of a result. `body` is the whole response with the totals; `columns` contains the names of the
    columns."""

    def __init__(self, body: Row, columns: Sequence[str], rows: Iterable[Row], times: Sequence[str] = ()) -> None:
        self.body = body
        self.columns = tuple(columns)
        self._rows = list(rows)
        self._times = tuple(times)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {len(self)} rows of {', '.join(self.columns)}>"

    def dataframe(self) -> "pandas.DataFrame":
        """Return the rows as a DataFrame; times are datetimes in UTC. Raises PandasMissingError."""
        return to_dataframe(self._rows, self.columns, self._times)


def yield_rows(body: Row, keys: Sequence[str]) -> ResultRows:
    """Return one row per bucket and group."""
    return ResultRows(body, (*keys, *_YIELD_COUNTS), body["buckets"], _bucket_times(keys))


def stats_rows(body: Row, keys: Sequence[str], fields: Sequence[str]) -> ResultRows:
    """Return one row per bucket and group; `fields__voltage.avg` is a measure of a field."""
    columns = (*keys, "count", *(f"{field}.{measure}" for field in fields for measure in _MEASURES))
    return ResultRows(body, columns, map(_flat_stats, body["buckets"]), _bucket_times(keys))


def failure_rows(body: Row) -> ResultRows:
    """Return one row per failed measurement."""
    return ResultRows(body, _FAILURE, body["failures"])


def distribution_rows(body: Row, keys: Sequence[str]) -> ResultRows:
    """Return one row per group."""
    return ResultRows(body, (*keys, *_DISTRIBUTION), body["groups"])


def facet_rows(body: Row) -> ResultRows:
    """Return one row per value of each field."""
    rows = [{"field": name, **value} for name, facet in body["facets"].items() for value in facet["values"]]
    return ResultRows(body, _FACET, rows)


def catalog_rows(body: Row) -> ResultRows:
    """Return one row per path of each app. The types are joined to one text, such as `number string`."""
    rows = [
        {name: app[name] for name in ("app_name", "logs", "first", "last")}
        | {"path": path["path"], "types": " ".join(path["types"])}
        for app in body["apps"]
        for path in (*app["tags"], *app["fields"])
    ]
    return ResultRows(body, _CATALOG, rows, ("first", "last"))


def unit_rows(body: Row) -> ResultRows:
    """Return one row per app that has logged the unit."""
    return ResultRows(body, _UNIT_APP, body["apps"], ("first", "last"))


def flat_log(log: Row) -> Row:
    """Return a log with a separate column for each JSON value, named as in `q`: `fields__battery__voltage`.

    If `tags` or `fields` is not an object, it remains one column.
    """
    flat = {name: value for name, value in log.items() if name not in ("tags", "fields")}
    for column in ("tags", "fields"):
        if log[column] is not None:
            flat |= _leaves(column, log[column])
    return flat


def to_dataframe(rows: Sequence[Row], columns: Sequence[str], times: Sequence[str] = ()) -> "pandas.DataFrame":
    """Return rows as a DataFrame with these columns first, then the other columns of the rows. Raises
    PandasMissingError.

    The types are pandas' nullable types, so that integers and booleans keep their type in a column with missing values.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        raise PandasMissingError("dataframe() needs pandas: pip install 'factory-logs[pandas]'") from None
    names = dict.fromkeys([*columns, *(name for row in rows for name in row)])
    values = {name: [row.get(name) for row in rows] for name in names}
    frame = pandas.DataFrame(
        {name: pandas.Series(of, dtype="Int64" if _are_integers(of) else object) for name, of in values.items()}
    )
    for name in times:
        frame[name] = pandas.to_datetime(frame[name], utc=True, format="ISO8601")
    return frame.convert_dtypes()


def _are_integers(values: Sequence[Any]) -> bool:
    """Return whether all values are 64-bit integers or missing. pandas itself would convert them to floats."""
    given = [value for value in values if value is not None]
    return bool(given) and all(type(value) is int and -(2**63) <= value < 2**63 for value in given)


def _flat_stats(bucket: Row) -> Row:
    values = bucket.get("values") or {}
    measures = {f"{field}.{measure}": value for field, of in values.items() for measure, value in of.items()}
    return {name: value for name, value in bucket.items() if name != "values"} | measures


def _leaves(path: str, value: Any) -> Row:
    if not isinstance(value, dict) or not value:
        return {path: value}
    leaves: Row = {}
    for name, member in value.items():
        leaves |= _leaves(f"{path}__{name}", member)
    return leaves


def _bucket_times(keys: Sequence[str]) -> tuple[str, ...]:
    return ("bucket",) if "bucket" in keys else ()

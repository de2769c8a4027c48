"""Read the catalog: the apps, and the paths in their tags and fields with the types of the values.

The catalog is computed in parts of many ids, and the result of each part is stored. One worker at a time adds new logs
in the background, so that requests find a catalog that is nearly up to date. The worker rests after each part, because
writes have priority on PostgreSQL's processors and disks.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import orjson
import structlog
from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.catalog import app_rows, path_rows, tag_set_rows, work_alone
from factory_logs.db.removals import BLOCK
from factory_logs.durations import vary
from factory_logs.errors import BadRequestError, FactoryLogsError, OverloadedError
from factory_logs.metrics import CATALOG_MISSING, CATALOG_SECONDS
from factory_logs.querier.aggregates import AggregateResult
from factory_logs.querier.sum_definitions import Conditions, Summed
from factory_logs.querier.sum_rows import TooManyRowsError, fetched
from factory_logs.querier.sum_tables import Table
from factory_logs.querier.sums import StillReadingError, Sums, SumsOfSnapshot
from factory_logs.query import Query

COLUMNS = ("app_name", "logs", "first", "last", "path", "types")


class App(NamedTuple):
    """An app, the number of its logs, and how many of these name a unit or a repair."""

    app_name: str
    logs: int
    first: str
    last: str
    with_unit: int
    with_repair: int


class Path(NamedTuple):
    """A path in the logs of an app, with the type of a value there. The path begins with `tags` or `fields`."""

    app_name: str
    keys: Sequence[str]
    type: str


async def read_catalog(sums: Sums, max_paths: int) -> AggregateResult:
    """Return the catalog of all logs. Raises the errors of `found_in`."""
    apps, paths = await sums.read(lambda snapshot: found_in(snapshot, max_paths))
    return as_result(apps, paths)


async def found_in(snapshot: SumsOfSnapshot, max_paths: int) -> tuple[list[App], list[Path]]:
    """Return the apps and the paths of all logs in a snapshot. Raises the errors of `tables_in`."""
    apps, paths = await tables_in(snapshot, max_paths)
    return as_apps(apps), as_paths(paths)


def as_apps(table: Table) -> list[App]:
    return [App._make([orjson.loads(key[0]), *list(numbers)]) for key, numbers in table.items()]


def as_paths(table: Table) -> list[Path]:
    return [Path(orjson.loads(app), orjson.loads(keys), orjson.loads(kind)) for app, keys, kind in table]


async def tables_in(snapshot: SumsOfSnapshot, max_paths: int) -> tuple[Table, Table]:
    """Return the sums APPS and PATHS over all logs in a snapshot. They are computed in parts, and each part is cached.

    Raises BadRequestError for more than `max_paths` paths; each path counts once for each app and type. Raises
    OverloadedError if the computation takes longer than a statement may; the next request continues it.
    """
    try:
        with reporting_progress():
            return await snapshot.table(APPS, max_paths), await snapshot.table(PATHS, max_paths)
    except TooManyRowsError:
        raise _too_many_paths(max_paths) from None


@contextmanager
def reporting_progress() -> Iterator[None]:
    """Raise OverloadedError if the sums are not complete yet."""
    try:
        yield
    except StillReadingError as error:
        share = f"{error.up_to * 100 // error.goal} %"
        raise OverloadedError(f"The catalog is being computed: {share} of the logs are done. Try again", 1) from None


def _too_many_paths(most: int) -> BadRequestError:
    return BadRequestError(
        f"More than {most} paths in the catalog; logs should hold values under few names, not names that vary"
    )


async def _apps(connection: AsyncConnection, conditions: Conditions, most: int) -> Sequence[Row[Any]]:
    return await fetched(connection, app_rows(conditions), most)


async def _tag_sets(connection: AsyncConnection, conditions: Conditions, most: int) -> Sequence[Row[Any]]:
    return await fetched(connection, tag_set_rows(conditions), most)


PART = BLOCK
"""How many ids one part covers; reading their paths takes about a second. After retention, parts are read again if
their blocks of ids have lost logs (db/removals.py), so a part is one block."""
APPS = Summed("apps with columns", Query(), 1, _apps, part=PART, least=frozenset({1}), greatest=frozenset({2}))
"""For each app: the number of logs, the times of the first and the last log, and the numbers of logs with a unit and
with a repair."""
PATHS = Summed(
    "paths with types of numbers",
    Query(),
    3,
    path_rows,
    part=PART,
    greatest=frozenset({0}),
    read_unlike=lambda connection, conditions, most, table: path_rows(connection, conditions, most, as_paths(table)),
)
"""For each app, path and type, the number 1."""
TAG_SETS = Summed("tag sets", Query(), 2, _tag_sets, part=PART, greatest=frozenset({0}))
"""For each app and value of `tags`, the number 1."""
TABLES = (APPS, PATHS, TAG_SETS)
_JSON_TYPES = {"integer": "number", "float": "number"}


def as_result(apps: Iterable[App], paths: Iterable[Path]) -> AggregateResult:
    """Return the catalog of apps and paths."""
    types: defaultdict[tuple[str, str], defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for app, keys, kind in paths:
        types[app, keys[0]]["__".join(keys)].add(_JSON_TYPES.get(kind, kind))
    entries: list[dict[str, Any]] = [
        {
            "app_name": app.app_name,
            "logs": app.logs,
            "first": app.first,
            "last": app.last,
            **{column: _paths(types[app.app_name, column]) for column in ("tags", "fields")},
        }
        for app in sorted(apps)
    ]
    rows = [
        {**entry, "path": path["path"], "types": " ".join(path["types"])}
        for entry in entries
        for path in (*entry["tags"], *entry["fields"])
    ]
    return AggregateResult({"apps": entries}, COLUMNS, rows)


def _paths(types: dict[str, set[str]]) -> list[dict[str, Any]]:
    return [{"path": path, "types": sorted(found)} for path, found in sorted(types.items())]


REST = 3
"""After a part, the background work rests for this many times as long as the part took."""
_log = structlog.get_logger(__name__)


class CatalogUpdates:
    """Adds new logs to the catalog. `run` must run in the background."""

    def __init__(self, sums: Sums, every_seconds: float, max_paths: int, tables: Sequence[Summed] = TABLES) -> None:
        self._sums = sums
        self._every_seconds = every_seconds
        self._max_paths = max_paths
        self._tables = tables
        self._reached: tuple[str, int, int] | None = None
        """The sum that the last part belongs to, how many logs had been removed, and how many ids are known."""

    async def run(self) -> None:
        """Add new logs about every `every_seconds` until cancelled. The times vary, so that workers take turns."""
        while True:
            await asyncio.sleep(vary(self._every_seconds))
            try:
                await self.add_new_logs()
            except (FactoryLogsError, SQLAlchemyError) as error:  # for example too many paths, or no database
                _log.warning("the catalog cannot be updated", reason=str(error).partition("\n")[0])

    async def add_new_logs(self) -> None:
        """Add the logs up to the watermark, unless another worker is adding them. Raises BadRequestError for too many
        paths, OverloadedError, DatabaseUnavailableError."""
        before: tuple[str, int, int] | None = None
        while True:
            started = time.monotonic()
            is_complete = await self.add_part()
            seconds = time.monotonic() - started
            CATALOG_SECONDS.inc(seconds)
            if is_complete:
                return
            if self._reached == before:
                _log.warning("the catalog cannot be stored: it has more rows than FACTORY_LOGS_MAX_KNOWN_ROWS")
                return
            before = self._reached
            await asyncio.sleep(REST * seconds)

    async def add_part(self) -> bool:
        """Add the logs of one part. Return whether this worker has nothing left to do."""
        async with self._sums.snapshot(part_seconds=0.0) as snapshot:
            if not await work_alone(snapshot.connection):
                return True
            for table in self._tables:
                try:
                    await snapshot.advance(table, self._max_paths)
                except StillReadingError as error:
                    CATALOG_MISSING.set(error.goal - error.up_to)
                    self._reached = table.name, snapshot.state.removed, error.up_to
                    return False
                except TooManyRowsError:
                    # Too many tag sets are not an error here: requests read them on demand.
                    if table.name != TAG_SETS.name:
                        raise _too_many_paths(self._max_paths) from None
        CATALOG_MISSING.set(0)
        return True

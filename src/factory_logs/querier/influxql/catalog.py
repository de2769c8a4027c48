"""Derive the schema and the sets of tags of each measurement from the catalog.

Most new logs change neither the schema nor the sets. So a worker caches both, and derives them again only if the sums
in querier/catalog.py have changed.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import orjson

from factory_logs.influxql.schema import COLUMN_TAGS, MeasurementSchema, Schema, as_schema
from factory_logs.querier.catalog import TAG_SETS, as_apps, as_paths, reporting_progress, tables_in
from factory_logs.querier.sum_rows import TooManyRowsError
from factory_logs.querier.sum_tables import Table
from factory_logs.querier.sums import SumsOfSnapshot
from factory_logs.settings import Settings

TagSets = dict[str, list[Any]]
"""The distinct values of `tags` in the logs of each app."""


class InfluxqlCatalog:
    """The schema and the sets of tags that a worker has derived from the catalog."""

    def __init__(self, settings: Settings) -> None:
        self._max_paths = settings.max_catalog_paths
        self._columns: list[tuple[str, list[str]]] = []
        self._paths: Table = {}
        self._schema: Schema = {}
        self._tags: Table = {}
        self._tag_sets: TagSets = {}

    async def schema(self, snapshot: SumsOfSnapshot) -> Schema:
        """Return the schema in a snapshot. Raises the errors of `tables_in`."""
        apps, paths = await tables_in(snapshot, self._max_paths)
        columns = [
            (app.app_name, [*["product_imei"][: app.with_unit], *["repair_id"][: app.with_repair]])
            for app in as_apps(apps)
        ]
        if columns != self._columns or paths is not self._paths:
            self._schema = as_schema(columns, as_paths(paths))
            self._columns, self._paths = columns, paths
        return self._schema

    async def tag_sets(self, snapshot: SumsOfSnapshot) -> TagSets | None:
        """Return the sets of tags in a snapshot, or None if there are too many sets.

        Raises OverloadedError if the sets are not complete yet.
        """
        try:
            with reporting_progress():
                tags = await snapshot.table(TAG_SETS, self._max_paths)
        except TooManyRowsError:
            return None
        if tags.keys() != self._tags.keys():
            found: defaultdict[str, list[Any]] = defaultdict(list)
            for app, text in tags:
                found[orjson.loads(app)].append(orjson.loads(text))
            self._tag_sets = dict(found)
        self._tags = tags
        return self._tag_sets


def tag_in(tags: Any, measurement: MeasurementSchema, name: str) -> str:
    """Return the value of a tag in `tags`, or empty text if the tag is missing or stored in a column of its own."""
    for path in measurement.tags.get(name, ()):
        value = tags
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str):
            return value
    return ""


def series_in(tag_sets: Sequence[Any], measurement: MeasurementSchema, names: Sequence[str]) -> set[tuple[str, ...]]:
    """Return the distinct combinations of values of these tags."""
    return {tuple(tag_in(tags, measurement, name) for name in names) for tags in tag_sets}


def are_in_tags(names: Sequence[str]) -> bool:
    """Return whether all of these tags are stored in `tags`, none in a column of its own."""
    return not set(names) & set(COLUMN_TAGS)

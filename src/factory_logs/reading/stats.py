"""The answer to a question for stats, bounded."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from factory_logs.db.engine import Database
from factory_logs.errors import BadRequestError
from factory_logs.query import FACTORY_LOGS, MEASURES, Stats, compile_stats
from factory_logs.schemas.timestamps import format_timestamp

TIME = "timestamp"


async def read_stats(database: Database, stats: Stats, max_rows: int) -> list[dict[str, Any]]:
    """A JSON-ready object for each bucket and group. Raises BadRequestError for more than `max_rows` of them."""
    statement = compile_stats(stats, FACTORY_LOGS, TIME).limit(max_rows + 1)
    async with database.connect() as connection:
        rows = (await connection.execute(statement)).all()
    if len(rows) > max_rows:
        raise BadRequestError(
            f"More than {max_rows} buckets and groups; take a longer bucket, fewer by, or narrow q by time or unit"
        )
    return [_as_object(row, stats) for row in rows]


def _as_object(row: Sequence[Any], stats: Stats) -> dict[str, Any]:
    names = ([] if stats.bucket is None else ["bucket"]) + list(stats.by)
    answer = {name: _json(value) for name, value in zip(names, row, strict=False)}
    answer["count"] = row[len(names)]
    measures = iter(row[len(names) + 1 :])
    if stats.fields:
        # The texts are PostgreSQL's numbers, which are JSON's too.
        answer["values"] = {name: {measure: _number(next(measures)) for measure in MEASURES} for name in stats.fields}
    return answer


def _json(value: Any) -> Any:
    return format_timestamp(value) if isinstance(value, datetime) else value


def _number(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)

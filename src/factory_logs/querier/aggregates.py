"""Shared code of all calls that aggregate logs: limited concurrency, one snapshot per call, and the format of results.

Values that identify a group are JSON texts: equal values have the same text, and the texts have a defined order.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Any, TypeVar

import orjson
from sqlalchemy import ColumnElement, Row, Select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.aggregates import Selection, sampled
from factory_logs.db.engine import Database
from factory_logs.errors import BadRequestError, FieldError, OverloadedError
from factory_logs.query import FACTORY_LOGS, Bucket, Field, Query, compile_filters, field_value
from factory_logs.query.rewriting import TimeRange
from factory_logs.schemas.timestamps import format_timestamp
from factory_logs.settings import Settings

RETRY_AFTER_SECONDS = 5
SAMPLED_FOR_EACH = 5
"""The number of logs in a sample for each group that a result may contain."""
UNKNOWN_ZONE = "22023"
"""SQLSTATE invalid_parameter_value. In these statements, only an unknown time zone causes it."""


@dataclass(frozen=True, slots=True)
class AggregateResult:
    """The result of a call: its JSON body, and the body without totals as a table of columns and rows."""

    body: Mapping[str, Any]
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]


class Aggregates:
    """Limits how many aggregates run at once in a worker, so that other calls still get connections from the pool."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._running = asyncio.Semaphore(settings.max_aggregates)
        self._wait_seconds = settings.pool_timeout_seconds

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection whose statements all read the same snapshot.

        Raises OverloadedError if too many aggregates run, DatabaseUnavailableError, and BadRequestError for a time zone
        that PostgreSQL does not know.
        """
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._running.acquire()
        except TimeoutError:
            message = "Too many aggregates are running; try again when one has ended"
            raise OverloadedError(message, RETRY_AFTER_SECONDS) from None
        try:
            async with self._database.snapshot() as connection:
                yield connection
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) != UNKNOWN_ZONE:
                raise
            known = FieldError(
                "tz", "PostgreSQL does not know this time zone; expected an IANA name such as Asia/Shanghai"
            )
            raise BadRequestError("Validation failed", [known]) from error
        finally:
            self._running.release()


def log_value(field: Field) -> ColumnElement[Any]:
    """Return the SQL for a field of logs."""
    return field_value(field, FACTORY_LOGS, FACTORY_LOGS.table)


def selection(query: Query, bucket: Bucket | None, by: Iterable[Field]) -> Selection:
    """Return the SQL that selects the logs of a query and their groups."""
    keys = list(map(log_value, by))
    return replace(grouping(bucket, keys), conditions=compile_filters(query, FACTORY_LOGS))


def grouping(bucket: Bucket | None, keys: Sequence[ColumnElement[Any]]) -> Selection:
    """Return the SQL that selects all logs and their groups."""
    return Selection((), keys) if bucket is None else Selection((), keys, bucket.length, bucket.zone)


async def limited(connection: AsyncConnection, statement: Select[Any], most: int) -> Sequence[Row[Any]]:
    """Run a statement that returns one row for each bucket and group, and return its rows. Raises BadRequestError for
    more than `most` rows."""
    rows: Sequence[Row[Any]] = (await connection.execute(statement.limit(most + 1))).all()
    if len(rows) > most:
        raise too_many_groups(most)
    return rows


async def sample_condition(
    connection: AsyncConnection, conditions: Sequence[ColumnElement[bool]], times: TimeRange, most: int
) -> list[ColumnElement[bool]]:
    """Return the condition for a sample of the logs in a time range that match `conditions`. If all these logs have
    more than `most` groups, the sample very probably has more than `most` too.

    Each group in the sample is also a group of all logs. So if the sample has too many groups, the call can fail
    without reading the other logs. Return an empty list if the sample would not be much smaller than all logs.
    """
    sample = await sampled(connection, conditions, times.begin, times.end, SAMPLED_FOR_EACH * most)
    return [] if sample is None else [sample]


def too_many_groups(most: int) -> BadRequestError:
    return BadRequestError(
        f"More than {most} buckets and groups; use a longer bucket or fewer by, or narrow q by time or unit"
    )


def group_names(bucket: Bucket | None, by: Iterable[str]) -> list[str]:
    """Return the names of the values that identify a group."""
    return ([] if bucket is None else ["bucket"]) + list(by)


def shown(value: Any) -> Any:
    """Return a key of a group in the form that JSON responses use."""
    return format_timestamp(value) if isinstance(value, datetime) else value


def exact(number: str | None) -> orjson.Fragment | None:
    """Return a number exactly as PostgreSQL formats it, which is also valid JSON."""
    return None if number is None else orjson.Fragment(number)


def approximate(number: Decimal | None) -> orjson.Fragment | None:
    """Return a number with the precision of a double; its value may be outside the range of doubles."""
    if number is None:
        return None
    double = float(number)
    return orjson.Fragment(repr(double) if abs(double) != float("inf") else f"{number:.17g}")


T = TypeVar("T")

NULL, TRUE, FALSE = b"null", b"true", b"false"
LARGEST = 2**64
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?')


def canonical(value: Any) -> bytes:
    """Return the JSON text of a value from PostgreSQL or of an orjson.Fragment. Equal values have equal texts."""
    text = orjson.dumps(shown(value))
    return text if text.startswith(b'"') else _TOKEN.sub(_one_form, text)


def _one_form(token: re.Match[bytes]) -> bytes:
    """Return a number without an unnecessary fraction or exponent: PostgreSQL stores 1, 1.0 and 1e0 as different
    texts."""
    text = token[0]
    if text.startswith(b'"') or text.lstrip(b"-").isdigit():
        return text
    exact = Decimal(text.decode())
    is_whole = exact == exact.to_integral_value() and abs(exact) < LARGEST
    return str(int(exact) if is_whole else exact.normalize()).encode()


def rank(text: bytes) -> tuple[Any, ...]:
    """Return a sort key that orders strings by code points first, then numbers, booleans, other JSON, and null."""
    match text[:1]:
        case b'"':
            return 0, orjson.loads(text)
        case b"n":
            return (4,)
        case b"t" | b"f":
            return 2, text.decode()
        case b"[" | b"{":
            return 3, text.decode()
        case _:
            return 1, Decimal(text.decode())


def sorted_rows(table: Mapping[tuple[bytes, ...], T]) -> list[tuple[tuple[bytes, ...], T]]:
    """Return the rows sorted by their keys."""
    return sorted(table.items(), key=lambda row: [rank(text) for text in row[0]])

"""PostgreSQL's binary format of COPY, for logs (https://www.postgresql.org/docs/current/sql-copy.html).

Rows are encoded column by column, and a value that all rows share is encoded once. asyncpg's `copy_records_to_table` is
as fast for rows, but would need a row and a datetime for each log, which the columns do not have
(docs/explanation/batches.md).
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from struct import Struct
from typing import Any, Protocol

from factory_logs.schemas.timestamps import MICROSECONDS_TO_2000

SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
_JSONB_VERSION = 1
_NULL = b"\xff\xff\xff\xff"
_size = Struct(">i").pack
_integer = Struct(">ii").pack
_jsonb_start = Struct(">iB").pack


class LogColumns(Protocol):
    """The values of logs that the client sets, column by column.

    Times are microseconds since 1970. `tags` and `fields` are JSON text in UTF-8.
    """

    @property
    def app_names(self) -> Sequence[str]: ...
    @property
    def product_imeis(self) -> Sequence[str | None]: ...
    @property
    def repair_ids(self) -> Sequence[int | None]: ...
    @property
    def timestamps(self) -> Sequence[int]: ...
    @property
    def tags(self) -> Sequence[bytes | None]: ...
    @property
    def fields(self) -> Sequence[bytes | None]: ...
    def __len__(self) -> int: ...


COLUMNS = ("timestamp", "app_name", "product_imei", "repair_id", "tags", "fields", "created_by")
"""The columns of a row, after the columns of `bigints`."""


def encode_logs(logs: LogColumns, rows: slice, created_by: str | None, bigints: Sequence[Sequence[int]]) -> bytes:
    """Return these rows of the logs. Each row begins with the values of `bigints`, such as the ids."""
    times = [time - MICROSECONDS_TO_2000 for time in logs.timestamps[rows]]
    numbers = [*(column[rows] for column in bigints), times]
    start = Struct(">h" + "iq" * len(numbers)).pack
    sized = chain.from_iterable((repeat(8), column) for column in numbers)
    columns = (
        map(start, repeat(len(bigints) + len(COLUMNS)), *sized),
        _column(logs.app_names[rows], _texts),
        _column(logs.product_imeis[rows], _texts),
        _column(logs.repair_ids[rows], _integers),
        _column(logs.tags[rows], _jsonbs),
        _column(logs.fields[rows], _jsonbs),
        repeat(_texts([created_by])[0]),
    )
    return b"".join(chain.from_iterable(zip(*columns, strict=False)))


def _column(values: Sequence[Any], encode: Callable[[Sequence[Any]], list[bytes]]) -> Iterable[bytes]:
    if values.count(values[0]) == len(values):
        return repeat(encode(values[:1])[0])
    return encode(values)


def _texts(values: Sequence[str | None]) -> list[bytes]:
    return [_NULL if value is None else _size(len(text := value.encode())) + text for value in values]


def _integers(values: Sequence[int | None]) -> list[bytes]:
    return [_NULL if value is None else _integer(4, value) for value in values]


def _jsonbs(values: Sequence[bytes | None]) -> list[bytes]:
    return [_NULL if value is None else _jsonb_start(len(value) + 1, _JSONB_VERSION) + value for value in values]

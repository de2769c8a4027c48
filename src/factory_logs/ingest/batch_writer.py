"""Store batches: many logs in one transaction, by binary COPY, either all or only the good ones
(docs/reference/http-api.md#batches)."""

import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import compress, groupby
from typing import NamedTuple

import asyncpg

from factory_logs.db import idempotency_keys
from factory_logs.db.connection_pool import BatchConnections
from factory_logs.db.errors import refusal
from factory_logs.db.log_inserts import copy_logs, copy_logs_without_ids, unknown_repairs
from factory_logs.errors import BadRequestError, FactoryLogsError, FieldError
from factory_logs.ingest.batch_collector import Batch
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.ingest.idempotency import (
    KeyedBody,
    WriteKey,
    check_same,
    find_stored,
    first_response,
    just_forgotten,
)
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.metrics import CommitMetrics
from factory_logs.settings import Settings


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The result of a batch: the number of its good logs, their ids in the order of the input, and its bad records.

    `ids` is empty if the response does not need them.
    """

    stored: int
    ids: Sequence[int]
    rejected: int
    errors: Sequence[FieldError]


class WriteResponse(NamedTuple):
    """The response body of a write. `replayed` means that the body was stored by an earlier request with the same
    key."""

    body: bytes
    replayed: bool = False


WriteBody = Callable[[BatchResult], bytes]
"""Returns the response body for a batch. It is stored with the batch's key and sent again to a retry."""

_METRICS = CommitMetrics("batch")
_COPIED_LINE = re.compile(r"^COPY factory_logs, line (\d+)", re.MULTILINE)
"""Matches the context of an error in a COPY. A trigger that runs after the COPY has no line."""


class BatchWriter:
    """Writes each batch in its own transaction. It never retries, because a lost transaction may have been
    committed."""

    def __init__(self, connections: BatchConnections, settings: Settings, disk: DiskReserve) -> None:
        self._connections = connections
        self._disk = disk
        self._max_reported = settings.max_reported_errors

    async def store(
        self,
        batch: Batch,
        created_by: str | None,
        key: WriteKey | None,
        body: WriteBody,
        *,
        skip_bad: bool = False,
        needs_ids: bool = True,
    ) -> WriteResponse:
        """Store a batch in one transaction and return the response. The body of the response is made before the commit.

        Without `needs_ids`, PostgreSQL assigns the ids during the COPY, in the order of the input.

        If the key was used before, store nothing and return the first response. Raises BadRequestError, with nothing
        stored, if a record is bad and `skip_bad` is false, or if PostgreSQL refuses a record; ConflictError if the key
        was used for another body; OverloadedError if all connections stay busy or the disk is nearly full;
        DatabaseUnavailableError.
        """
        self._disk.refuse_if_low()
        started = time.perf_counter()
        async with self._connections.transaction() as connection:
            if key is not None and not await idempotency_keys.claim(connection, key):
                return await _first_response(connection, key)
            writing = _Transaction(connection, created_by, skip_bad, needs_ids, self._max_reported)
            await writing.add(batch)
            result = writing.result()
            text = body(result)
            if key is not None:
                await idempotency_keys.finish(connection, key, text)
        _METRICS.committed(result.stored, time.perf_counter() - started)
        return WriteResponse(text)

    async def store_stream(
        self,
        batches: AsyncIterator[Batch],
        created_by: str | None,
        key: Callable[[], WriteKey | None],
        body: WriteBody,
        *,
        skip_bad: bool = False,
        needs_ids: bool = True,
    ) -> WriteResponse:
        """Store a long batch in one transaction, with only one part in memory at a time.

        The whole body must have arrived before, so that a slow client cannot prolong the transaction. `key` is called
        after the last part, because its fingerprint covers the whole body. The key is claimed last. Raises the errors
        of `store`.
        """
        self._disk.refuse_if_low()
        started = time.perf_counter()
        try:
            async with self._connections.transaction() as connection:
                writing = _Transaction(connection, created_by, skip_bad, needs_ids, self._max_reported)
                async for batch in batches:
                    await writing.add(batch)
                result = writing.result()
                text = body(result)
                claimed = key()
                if claimed is not None:
                    if not await idempotency_keys.claim(connection, claimed):
                        raise _StoredBeforeError(await _first_response(connection, claimed))
                    await idempotency_keys.finish(connection, claimed, text)
        except _StoredBeforeError as before:
            return before.first
        _METRICS.committed(result.stored, time.perf_counter() - started)
        return WriteResponse(text)

    async def first_response(self, key: WriteKey | None, error: FactoryLogsError) -> WriteResponse:
        """Return the response to the first write with this key. If there is none, raise `error`; see
        ingest/idempotency.py."""
        first = await first_response(self._connections, key, error)
        return WriteResponse(first.body or b"", replayed=True)

    async def is_key_used(self, user_id: int, header: bytes) -> bool:
        """Return whether a write is stored under the key, without its body. Raises BadRequestError for an invalid
        key, OverloadedError, DatabaseUnavailableError."""
        return await find_stored(self._connections, KeyedBody(user_id, header, "").key()) is not None


class _StoredBeforeError(Exception):
    """Raised to roll back a transaction whose key was used before."""

    def __init__(self, first: WriteResponse) -> None:
        super().__init__()
        self.first = first


async def _first_response(connection: asyncpg.Connection, key: WriteKey) -> WriteResponse:
    first = await idempotency_keys.find(connection, key)
    if first is None:
        raise just_forgotten()
    check_same(key, first.fingerprint)
    return WriteResponse(first.body or b"", replayed=True)


class _Transaction:
    """One batch inside its transaction."""

    def __init__(
        self,
        connection: asyncpg.Connection,
        created_by: str | None,
        skip_bad: bool,
        needs_ids: bool,
        max_reported: int,
    ) -> None:
        self._connection = connection
        self._created_by = created_by
        self._skip_bad = skip_bad
        self._needs_ids = needs_ids
        self._max_reported = max_reported
        self._stored = 0
        self._ids: list[int] = []
        self._errors: list[FieldError] = []
        self._reported = 0
        self._rejected = 0

    async def add(self, batch: Batch) -> None:
        unknown = await unknown_repairs(self._connection, batch.logs.repair_ids)
        if unknown:
            batch = _without_unknown_repairs(batch, unknown)
        self._rejected += batch.rejected
        self._report(batch.errors)
        if batch.logs and (self._skip_bad or not self._rejected):
            with _naming_refused(batch.positions):
                await self._copy(batch.logs)

    async def _copy(self, logs: NewLogs) -> None:
        if self._needs_ids:
            self._ids.extend(await copy_logs(self._connection, logs, self._created_by))
        else:
            await copy_logs_without_ids(self._connection, logs, self._created_by)
        self._stored += len(logs)

    def _report(self, errors: Sequence[FieldError]) -> None:
        """Add the errors of the first bad records of the whole body; the parts are in the order of the input.

        The decoder has the same limit, but does not know which repairs exist.
        """
        for _, of_one_record in groupby(errors, key=_position):
            if self._reported == self._max_reported:
                return
            self._reported += 1
            self._errors.extend(of_one_record)

    def result(self) -> BatchResult:
        if self._rejected and not self._skip_bad:
            raise BadRequestError(
                f"Validation failed for {self._rejected} of the records; nothing was stored", self._errors
            )
        return BatchResult(self._stored, self._ids, self._rejected, self._errors)


@contextmanager
def _naming_refused(positions: Sequence[int]) -> Iterator[None]:
    """Raise BadRequestError with the position of a log that PostgreSQL refuses in a COPY of these positions.

    An error that PostgreSQL finds after the last log, such as a full disk, has a line after the last one.
    """
    try:
        yield
    except asyncpg.PostgresError as error:
        line = _COPIED_LINE.search(getattr(error, "context", None) or "")
        index = int(line[1]) - 1 if line else len(positions)
        refused = refusal(error, positions[index] if index < len(positions) else None)
        if refused is None:
            raise
        raise refused from error


def _without_unknown_repairs(batch: Batch, unknown: set[int]) -> Batch:
    """Return the batch with the logs of `unknown` repairs moved to its bad records."""
    known = [repair_id not in unknown for repair_id in batch.logs.repair_ids]
    bad = [
        FieldError("repair_id", f"there is no repair {repair_id}", position)
        for repair_id, position, is_known in zip(batch.logs.repair_ids, batch.positions, known, strict=True)
        if not is_known
    ]
    return Batch(
        batch.logs.selected(known),
        list(compress(batch.positions, known)),
        sorted([*batch.errors, *bad], key=_position),
        batch.rejected + len(bad),
    )


def _position(error: FieldError) -> int:
    return error.index or 0

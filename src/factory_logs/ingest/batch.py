"""Batches: many logs in one transaction, by binary COPY, all or nothing or only the good ones (SPEC 7)."""

import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import asyncpg

from factory_logs.db import idempotency
from factory_logs.db.idempotency import FirstAnswer
from factory_logs.db.log_writes import copy_logs, unknown_repairs
from factory_logs.errors import BadRequestError, FieldError
from factory_logs.ingest.batch_connections import BatchConnections
from factory_logs.ingest.idempotency import WriteKey, just_forgotten
from factory_logs.ingest.records import NewLog
from factory_logs.metrics import CommitMetrics
from factory_logs.settings import Settings


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read of a batch: the good logs with their places in it, and the faults of the bad ones."""

    logs: Sequence[NewLog]
    places: Sequence[int]
    faults: Sequence[FieldError]
    rejected: int
    """How many records are bad; `faults` may list fewer, or several for one record."""


@dataclass(frozen=True, slots=True)
class BatchResult:
    """What became of a batch: the ids of its good logs in the order of the input, and what was left out."""

    ids: Sequence[int]
    rejected: int
    faults: Sequence[FieldError]


Answer = Callable[[BatchResult], bytes]
"""Makes the body that a batch is answered with, and answered with again under its key."""

_METRICS = CommitMetrics("batch")


class BatchWriter:
    """Writes batches, each in a transaction of its own that is never tried twice: a lost one may be committed."""

    def __init__(self, connections: BatchConnections, settings: Settings) -> None:
        self._connections = connections
        self._max_reported = settings.max_reported_errors

    async def store(self, batch: Batch, created_by: str | None, *, skip_bad: bool = False) -> BatchResult:
        """Store a batch in one transaction.

        Raises BadRequestError, with nothing stored, where a record is bad and `skip_bad` is false; OverloadedError
        where all connections stay busy; DatabaseUnavailableError.
        """
        started = time.perf_counter()
        async with self._connections.transaction() as connection:
            writing = _Writing(connection, created_by, skip_bad, self._max_reported)
            await writing.add(batch)
            result = writing.result()
        _METRICS.committed(len(result.ids), time.perf_counter() - started)
        return result

    async def store_once(
        self, batch: Batch, created_by: str | None, key: WriteKey, answer: Answer, *, skip_bad: bool = False
    ) -> bytes | FirstAnswer:
        """Like `store`, but under a key: the answer is kept with it, and an earlier one is given instead."""
        started = time.perf_counter()
        async with self._connections.transaction() as connection:
            if not await idempotency.claim(connection, key):
                return await _first_answer(connection, key)
            writing = _Writing(connection, created_by, skip_bad, self._max_reported)
            await writing.add(batch)
            result = writing.result()
            body = answer(result)
            await idempotency.finish(connection, key, body)
        _METRICS.committed(len(result.ids), time.perf_counter() - started)
        return body

    async def store_stream(
        self,
        batches: AsyncIterator[Batch],
        created_by: str | None,
        key: Callable[[], WriteKey | None],
        answer: Answer,
        *,
        skip_bad: bool = False,
    ) -> bytes | FirstAnswer:
        """Store one long batch that comes in parts, in one transaction, holding one part at a time.

        `key` is asked once the parts have ended, as its fingerprint is of the whole. It is claimed last: nobody else
        with the same key waits while a slow sender goes on sending.
        """
        started = time.perf_counter()
        try:
            async with self._connections.transaction() as connection:
                writing = _Writing(connection, created_by, skip_bad, self._max_reported)
                async for batch in batches:
                    await writing.add(batch)
                result = writing.result()
                body = answer(result)
                claimed = key()
                if claimed is not None:
                    if not await idempotency.claim(connection, claimed):
                        raise _AnsweredBeforeError(await _first_answer(connection, claimed))
                    await idempotency.finish(connection, claimed, body)
        except _AnsweredBeforeError as before:
            return before.first
        _METRICS.committed(len(result.ids), time.perf_counter() - started)
        return body


class _AnsweredBeforeError(Exception):
    """Ends a transaction whose key turns out to have been used; what it stored is rolled back."""

    def __init__(self, first: FirstAnswer) -> None:
        super().__init__()
        self.first = first


async def _first_answer(connection: asyncpg.Connection, key: WriteKey) -> FirstAnswer:
    first = await idempotency.find(connection, key)
    if first is None:
        raise just_forgotten()
    return first


class _Writing:
    """One batch inside its transaction."""

    def __init__(
        self, connection: asyncpg.Connection, created_by: str | None, skip_bad: bool, max_reported: int
    ) -> None:
        self._connection = connection
        self._created_by = created_by
        self._skip_bad = skip_bad
        self._max_reported = max_reported
        self._ids: list[int] = []
        self._faults: list[FieldError] = []
        self._reported = 0
        self._rejected = 0

    async def add(self, batch: Batch) -> None:
        unknown = await unknown_repairs(self._connection, batch.logs)
        if unknown:
            batch = _without_unknown_repairs(batch, unknown)
        self._rejected += batch.rejected
        self._report(batch.faults)
        if batch.logs and (self._skip_bad or not self._rejected):
            self._ids.extend(await copy_logs(self._connection, batch.logs, self._created_by))

    def _report(self, faults: Sequence[FieldError]) -> None:
        """Keep the faults of the first bad records of all, as parts come in the order of the input.

        Who read the batch keeps to the same limit, but does not know of the repairs that are not there.
        """
        for _, of_one_record in groupby(faults, key=_place):
            if self._reported == self._max_reported:
                return
            self._reported += 1
            self._faults.extend(of_one_record)

    def result(self) -> BatchResult:
        if self._rejected and not self._skip_bad:
            raise BadRequestError(
                f"Validation failed for {self._rejected} of the records; nothing was stored", self._faults
            )
        return BatchResult(self._ids, self._rejected, self._faults)


def _without_unknown_repairs(batch: Batch, unknown: set[int]) -> Batch:
    """The batch with the logs of `unknown` repairs among the bad ones."""
    bad = [
        FieldError("repair_id", f"there is no repair {log.repair_id}", place)
        for log, place in zip(batch.logs, batch.places, strict=True)
        if log.repair_id in unknown
    ]
    good = [(log, place) for log, place in zip(batch.logs, batch.places, strict=True) if log.repair_id not in unknown]
    return Batch(
        [log for log, _ in good],
        [place for _, place in good],
        sorted([*batch.faults, *bad], key=_place),
        batch.rejected + len(bad),
    )


def _place(fault: FieldError) -> int:
    return fault.index or 0

"""Store a single log or repair and return its record. A log shares a commit with the logs of other clients.

The JSON of a log is written before the commit. Otherwise a log could be stored for which no response can be written.
"""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

import orjson

from factory_logs.db.connection_pool import BatchConnections
from factory_logs.db.engine import Database
from factory_logs.db.errors import refusing_records
from factory_logs.db.idempotency_keys import FirstResponse as FirstResponse
from factory_logs.db.log_inserts import Stored as Stored
from factory_logs.db.records import RecordText, record_text
from factory_logs.db.repairs import COLUMNS, RepairRepository
from factory_logs.errors import BadRequestError
from factory_logs.ingest.batch_writer import WriteResponse
from factory_logs.ingest.fast_validation import fast_log_from_text, read_log
from factory_logs.ingest.group_commit import GroupCommit
from factory_logs.ingest.idempotency import WriteKey, check_same, first_response, just_forgotten
from factory_logs.ingest.validation import NewLog, parse_model
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.schemas.repair import RepairIn
from factory_logs.schemas.timestamps import SERVER_TIME, parse_timestamp


class StoredRecord(NamedTuple):
    """The JSON of a stored record. `replayed` means that the record was stored by an earlier request with the same
    key."""

    record_id: int
    body: bytes
    replayed: bool = False


class SingleLogs:
    """Stores the single logs of a worker by group commit. `read` returns the JSON of a stored log by its id."""

    def __init__(
        self,
        group_commit: GroupCommit,
        connections: BatchConnections,
        limits: RecordLimits,
        read: Callable[[int], Awaitable[str | None]],
    ) -> None:
        self._group_commit = group_commit
        self._connections = connections
        self._limits = limits
        self._read = read

    def prepare(self, text: bytes | bytearray, username: str) -> tuple[NewLog, RecordText] | None:
        """Return the log of a JSON text and the log's JSON, or None if only `store` can validate it."""
        log = fast_log_from_text(text, self._limits)
        return None if log is None else (log, record_text(log, username))

    async def store(self, text: bytes, username: str, key: WriteKey | None) -> StoredRecord:
        """Store one log from its JSON text. If the key was used before, store nothing and return the first record.

        Raises BadRequestError, ConflictError, OverloadedError, DatabaseUnavailableError.
        """
        try:
            return await self._store(text, username, key)
        except BadRequestError as error:
            first_id = (await first_response(self._connections, key, error)).factory_log_id or 0
            first = await self._read(first_id)
            if first is None:  # retention has removed the log
                error.is_key_used = True
                raise
            return StoredRecord(first_id, first.encode(), replayed=True)

    async def _store(self, text: bytes, username: str, key: WriteKey | None) -> StoredRecord:
        log = read_log(text, self._limits)
        record = record_text(log, username)
        result = await self._group_commit.store(log, username, key)
        if isinstance(result, Stored):
            return StoredRecord(result.factory_log_id, record.stored(result))
        assert key is not None  # noqa: S101 - only a key was used before
        check_same(key, result.fingerprint)
        # The body and the user are the same, so only a server time in the log must be read from the database.
        stored = Stored(result.factory_log_id or 0, result.created_at)
        if SERVER_TIME.encode() in text or b"\\u" in text:  # with an escape, the text may contain SERVER_TIME too
            first = await self._read(stored.factory_log_id)
            if first is not None:
                log = log._replace(timestamp=parse_timestamp(orjson.loads(first)["timestamp"]))
                record = record_text(log, username)
        return StoredRecord(stored.factory_log_id, record.stored(stored), replayed=True)

    async def store_point(self, log: NewLog, username: str, key: WriteKey | None) -> WriteResponse:
        """Store one log whose response has no body. Raises the errors of `store`."""
        result = await self._group_commit.store(log, username, key)
        if not isinstance(result, FirstResponse):
            return WriteResponse(b"")
        assert key is not None  # noqa: S101 - only a key was used before
        check_same(key, result.fingerprint)
        return WriteResponse(result.body or b"", replayed=True)


class RepairWriter:
    """Stores repairs."""

    def __init__(self, database: Database, connections: BatchConnections) -> None:
        self._repairs = RepairRepository(database)
        self._connections = connections

    async def store(self, text: bytes, username: str, key: WriteKey | None) -> StoredRecord:
        """Store one repair from its JSON text. If the key was used before, store nothing and return the first record.

        Raises BadRequestError, ConflictError, OverloadedError, DatabaseUnavailableError.
        """
        try:
            repair = parse_model(RepairIn, text)
        except BadRequestError as error:
            return _replayed_repair(await first_response(self._connections, key, error))
        values = {name: getattr(repair, name) for name in COLUMNS}
        with refusing_records():
            if key is None:
                return StoredRecord(*await self._repairs.add(values, username))
            result = await self._repairs.add_once(values, username, key)
        if result is None:
            raise just_forgotten()
        if isinstance(result, FirstResponse):
            check_same(key, result.fingerprint)
            return _replayed_repair(result)
        return StoredRecord(*result)


def _replayed_repair(first: FirstResponse) -> StoredRecord:
    text = first.body or b""
    return StoredRecord(orjson.loads(text)["repair_id"], text, replayed=True)

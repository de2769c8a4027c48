"""Refuse new logs while the disk of the embedded database is nearly full, so that PostgreSQL need not stop.

PostgreSQL stops if there is no space for its write-ahead log. Then no client can read, and retention cannot free space.
So a reserve of the disk remains free for reading and retention. Rows that retention has removed leave free space inside
the table, but its file does not shrink. If that space is as large as the reserve, logs are stored until only half of
the reserve is free.
"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import asyncpg
import structlog

from factory_logs.db.engine import Database
from factory_logs.errors import DatabaseUnavailableError, DiskNearlyFullError
from factory_logs.metrics import DISK_FREE, DISK_RESERVE
from factory_logs.settings import Settings

CLUSTER_VARIABLE = "FACTORY_LOGS_EMBEDDED_CLUSTER"
"""The environment variable in which `serve` passes the folder of the embedded PostgreSQL to its workers."""
CHECK_SECONDS = 1.0
ROOM_CHECKS = 30
"""While the disk is low, the free space inside the table is read once in this number of checks."""

# Only pages that are at least half empty count. The extension is created in a transaction that is rolled back, so no
# backup contains it.
_EXTENSION = "CREATE EXTENSION IF NOT EXISTS pg_freespacemap"
_ROOM = "SELECT coalesce(sum(avail), 0)::bigint FROM pg_freespace('factory_logs') WHERE avail >= 4096"

_log = structlog.get_logger(__name__)


class DiskReserve:
    """Checks the disk and sets `is_low` while new logs must be refused. `run` must run in the background, or `is_low`
    never changes.

    Without a `cluster`, which means that the operator runs PostgreSQL, nothing is checked.
    """

    def __init__(self, database: Database, settings: Settings, cluster: Path | None) -> None:
        self.is_low = False
        self._database = database
        self._reserve = settings.disk_reserve_bytes
        self._cluster = cluster
        self._room = 0
        self._low_checks = 0

    def refuse_if_low(self) -> None:
        """Raise DiskNearlyFullError if new logs must be refused."""
        if self.is_low:
            raise DiskNearlyFullError

    async def run(self) -> None:
        """Check the disk until cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_SECONDS)

    async def check(self) -> None:
        """Read the free bytes, and set the metric and `is_low`."""
        if self._cluster is None:
            return
        try:
            free = await asyncio.to_thread(free_bytes, self._cluster)
        except OSError as error:
            _log.warning("the free bytes of the disk cannot be read", reason=str(error))
            return
        for part, number in free.items():
            DISK_FREE.labels(part).set(number)
        DISK_RESERVE.set(self._reserve)
        least = min(free.values())
        is_low = await self._is_too_little(least)
        if is_low and not self.is_low:
            _log.error(
                "the disk is nearly full: new logs are refused until there is room (docs/how-to/operating.md)",
                free_bytes=least, reserve_bytes=self._reserve,
            )  # fmt: skip
        elif self.is_low and not is_low:
            _log.info("the disk has room again: new logs are stored", free_bytes=least)
        self.is_low = is_low

    async def refuse_if_low_now(self) -> None:
        """Raise DiskNearlyFullError if new logs must be refused, for a command that writes without `run`.

        Raises OSError if the free bytes cannot be read.
        """
        if self._cluster is None:
            return
        if await self._is_too_little(min(free_bytes(self._cluster).values())):
            raise DiskNearlyFullError

    async def _is_too_little(self, free: int) -> bool:
        return free < self._reserve and (free < self._reserve // 2 or await self._known_room() < self._reserve)

    async def _known_room(self) -> int:
        """Return the number of bytes that the table can store without growing."""
        if self._low_checks % ROOM_CHECKS == 0:
            self._room = await self._read_room()
        self._low_checks += 1
        return self._room

    async def _read_room(self) -> int:
        with suppress(DatabaseUnavailableError, asyncpg.PostgresError):
            connection = await self._database.connect_raw()
            try:
                async with self._database.available():
                    transaction = connection.transaction()
                    await transaction.start()
                    await connection.execute(_EXTENSION)
                    room: int = await connection.fetchval(_ROOM)
                    await transaction.rollback()
                    return room
            finally:
                connection.terminate()
        return 0


def embedded_cluster() -> Path | None:
    """Return the folder of the embedded PostgreSQL's files, or None if the operator runs PostgreSQL."""
    folder = os.environ.get(CLUSTER_VARIABLE)
    return None if folder is None else Path(folder)


def free_bytes(cluster: Path) -> Mapping[str, int]:
    """Return the bytes that PostgreSQL can still use for its tables and for its write-ahead log. Raises OSError."""
    folders = {"data": cluster, "wal": cluster / "pg_wal"}
    return {part: (disk := os.statvfs(folder)).f_bavail * disk.f_frsize for part, folder in folders.items()}

"""Store a body until all of it has arrived: in memory, and in a file if it is long or memory is short.

All bodies of a worker share one budget, so its memory and files are limited. A body that is still arriving holds no
connection, transaction or id, so a slow client does not delay other requests.
"""

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

import structlog

from factory_logs.errors import OverloadedError

Result = TypeVar("Result")
_log = structlog.get_logger(__name__)
ARRIVING_SHARE = 2
"""Arriving bodies use at most half of the memory, because complete bodies need the rest."""


class BodyBudget:
    """Counts the bytes of the bodies of all requests in a worker, and enforces the limits on them."""

    def __init__(self, max_bytes: int, max_file_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_file_bytes = max_file_bytes
        self.held = 0
        """Bytes in memory, of arriving and complete bodies."""
        self.arriving = 0
        """The part of these bytes that belongs to arriving bodies."""
        self.in_files = 0

    def take(self, size: int) -> None:
        """Count more bytes. Raises OverloadedError if the worker would hold too many."""
        if self.held + size > self._max_bytes:
            raise OverloadedError("The service is reading as much as it can hold right now")
        self.held += size

    def give_back(self, size: int) -> None:
        self.held -= size

    def take_arriving(self, size: int) -> bool:
        """Reserve memory for more bytes of an arriving body. Return False if they must go to a file instead."""
        if self.arriving + size > self._max_bytes // ARRIVING_SHARE or self.held + size > self._max_bytes:
            return False
        self.arriving += size
        self.held += size
        return True

    def give_back_arriving(self, size: int) -> None:
        self.arriving -= size
        self.held -= size

    def take_file(self, size: int) -> None:
        """Count more bytes in files. Raises OverloadedError if there would be too many."""
        if self.in_files + size > self._max_file_bytes:
            raise OverloadedError("The service is receiving as much as it can keep right now")
        self.in_files += size

    def give_back_file(self, size: int) -> None:
        self.in_files -= size


class BodySpool:
    """One body, which is first written and then read. `close` releases its share of the budget."""

    def __init__(self, budget: BodyBudget, memory_bytes: int, folder: Path | None) -> None:
        """Store up to `memory_bytes` in memory and the rest in a file. The file has no name, so it disappears with the
        process."""
        self._budget = budget
        self._memory_bytes = memory_bytes
        self._folder = folder
        self._pieces: list[bytes] = []
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self._in_file = 0
        self._read_of_file = 0
        self._part_bytes = 0
        self.size = 0

    async def write(self, piece: bytes) -> None:
        """Add a part. Raises OverloadedError if neither memory nor files have space for it."""
        size = len(piece)
        self.size += size
        if self._in_memory + size <= self._memory_bytes and self._budget.take_arriving(size):
            self._pieces.append(piece)
            self._in_memory += size
            return
        data = b"".join([*self._pieces, piece])
        self._budget.take_file(len(data))
        self._in_file += len(data)
        await self._on_file(lambda file: file.write(data))
        self._drop_pieces()

    @property
    def is_read(self) -> bool:
        """Whether `read` has returned the whole body."""
        return self._read_of_file == self._in_file and not self._in_memory

    async def read(self, size: int) -> bytes:
        """Return the next part: `size` bytes, or at the end the rest of the file and all bytes in memory.

        The part counts towards the budget until the next call. Raises OverloadedError.
        """
        self._drop_part()
        data = b""
        if self._read_of_file < self._in_file:
            start = self._read_of_file
            data = await self._on_file(lambda file: _read(file, start, size))
            self._read_of_file += len(data)
        if self._read_of_file == self._in_file:
            data += b"".join(self._pieces)
            self._drop_pieces()
        self._budget.take(len(data))
        self._part_bytes = len(data)
        return data

    def close(self) -> None:
        self._drop_pieces()
        self._drop_part()
        self._budget.give_back_file(self._in_file)
        self._in_file = self._read_of_file = 0
        if self._file is not None:
            with suppress(OSError):  # flushing the file's buffer may fail too
                self._file.close()

    def _drop_pieces(self) -> None:
        self._budget.give_back_arriving(self._in_memory)
        self._pieces, self._in_memory = [], 0

    def _drop_part(self) -> None:
        self._budget.give_back(self._part_bytes)
        self._part_bytes = 0

    async def _on_file(self, work: Callable[[IO[bytes]], Result]) -> Result:
        """Run work on the file in a thread. Raises OverloadedError if the disk is full or the folder does not exist."""
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by `close`
            return await asyncio.to_thread(work, self._file)
        except OSError as error:
            _log.error("an arriving body cannot be written to a file", reason=str(error))
            raise OverloadedError("The service cannot keep the body while it arrives") from None


def _read(file: IO[bytes], start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)

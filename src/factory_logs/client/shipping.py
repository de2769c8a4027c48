"""Takes a followed file's lines into the spool, each chunk together with the position after it: once, and all of it."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from factory_logs.client.client import Client
from factory_logs.client.errors import InvalidLogError, SpoolError
from factory_logs.client.followed_file import Chunk, FollowedFile
from factory_logs.client.spool import Reject
from factory_logs.client.spool_lock import SpoolLock

LineMaker = Callable[[bytes], bytes]
"""Makes a line of the file a line of NDJSON that can be sent; raises InvalidLogError."""


class Shipper:
    """Ships one file. Raises SpoolError where another process ships the same file into the same spool."""

    def __init__(self, client: Client, path: Path, make_line: LineMaker, *, rotated_seconds: float = 2.0) -> None:
        self._client = client
        self._make_line = make_line
        name = str(path.absolute())
        self._lock = SpoolLock(client.folder, f"ship-{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock")
        if not self._lock.acquire():
            raise SpoolError(f"{path} is being shipped by another process")
        self.file = FollowedFile(path, client.spool.position(name), rotated_seconds=rotated_seconds)
        self._chunk: Chunk | None = None
        self.shipped = 0
        self.rejected = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.__exit__()
        self._lock.close()

    def step(self, *, to_the_end: bool = False) -> bool:
        """Spool what has been written next; whether there was anything.

        Raises SpoolFullError where there is no room; nothing is lost, the next call tries the same again.
        """
        if self._chunk is None:
            self._chunk = self.file.read(to_the_end=to_the_end)
        if self._chunk is None:
            return False
        lines: list[bytes] = []
        rejects: list[Reject] = []
        for line in self._chunk.lines:
            try:
                lines.append(self._make_line(line.rstrip(b"\r")))
            except InvalidLogError as error:
                rejects.append(Reject(line, error.message))
        self._client.put(lines, rejects, self._chunk.position)
        self._chunk = None
        self.shipped += len(lines)
        self.rejected += len(rejects)
        return True

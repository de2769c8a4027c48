"""Combine the work of concurrent requests into one statement, for group commit (ingest/group_commit.py) and reads by id
(querier/by_id.py).

There is no timer. While one batch is in flight, new items wait; when it ends, its task takes all waiting items as the
next batch. So an idle service adds no latency, and a busy one sends one statement for dozens of requests.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from typing import Any, Generic, Protocol, TypeVar

import asyncpg
import structlog

from factory_logs.db.engine import Database
from factory_logs.db.errors import is_of_statement, refusal
from factory_logs.errors import FactoryLogsError, RetryableError

_log = structlog.get_logger(__name__)


class Receiver(Protocol):
    """Receives the outcome of an item, as a future does. No method may raise."""

    def done(self) -> bool: ...
    def set_result(self, result: Any, /) -> None: ...
    def set_exception(self, error: BaseException, /) -> None: ...


class Waiter(Protocol):
    """An item that waits for its result."""

    @property
    def receiver(self) -> Receiver: ...


Item = TypeVar("Item", bound=Waiter)
Results = TypeVar("Results")


class Coalescer(ABC, Generic[Item, Results]):
    """Collects the waiting items of a worker, and sends them in batches with several tasks. Each task has its own
    database connection.

    Call `start` before the first `add`, and `stop` at the end. A batch is not sent again after a lost connection,
    because it is unknown whether its transaction was committed. If PostgreSQL refuses its statement, nothing of it is
    stored, and its halves are sent apart. An item whose request was cancelled before it is sent, is not sent.
    """

    def __init__(self, database: Database, *, name: str, tasks: int, timeout_seconds: float) -> None:
        """Wait up to `timeout_seconds` for PostgreSQL to process one batch."""
        self._database = database
        self._name = name
        self._task_count = tasks
        self._timeout_seconds = timeout_seconds
        self._waiting: deque[Item] = deque()
        self._arrived = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._sent_at: dict[int, float] = {}
        """The time at which each busy task sent its batch, in seconds of the monotonic clock."""

    def start(self) -> None:
        self._tasks = [
            asyncio.create_task(self._run(number), name=f"{self._name}-{number}") for number in range(self._task_count)
        ]

    async def stop(self, drain_seconds: float = 0.0) -> None:
        """Send the waiting items for up to `drain_seconds`, then stop, and raise an error for the rest."""
        self._draining = True
        self._arrived.set()
        if self._tasks and drain_seconds:
            await asyncio.wait(self._tasks, timeout=drain_seconds)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail_waiting(self._stopping_error())

    def _add(self, item: Item) -> None:
        self._waiting.append(item)
        self._arrived.set()

    @abstractmethod
    def _take(self) -> list[Item]:
        """Remove the next batch from the waiting items, and return it."""

    @abstractmethod
    async def _send(self, connection: asyncpg.Connection, batch: list[Item]) -> Results:
        """Send the batch to PostgreSQL; return its results."""

    @abstractmethod
    def _resolve(self, batch: list[Item], results: Results, seconds: float) -> None:
        """Set the results of the waiters of a batch that was sent `seconds` ago."""

    @abstractmethod
    def _stopping_error(self) -> RetryableError:
        """Return the error for an item that was not sent before the service stopped."""

    def _note_failure(self, error: BaseException) -> None:
        """React to a failed batch, in addition to passing the error to its waiters."""

    async def _run(self, number: int) -> None:
        connection: asyncpg.Connection | None = None
        try:
            while True:
                while not self._waiting:
                    if self._draining:
                        if connection is not None:
                            await connection.close()
                        return
                    self._arrived.clear()
                    await self._arrived.wait()
                connection = await self._process(number, connection, self._take())
                del self._sent_at[number]
        finally:
            if connection is not None:
                connection.terminate()

    async def _process(
        self, number: int, connection: asyncpg.Connection | None, batch: list[Item]
    ) -> asyncpg.Connection | None:
        """Send one batch as the task with this number. Return the connection for the next batch, or None if the
        connection is lost."""
        self._sent_at[number] = time.monotonic()
        started = time.perf_counter()
        try:
            async with self._database.available():
                if connection is None or connection.is_closed():
                    connection = await self._database.connect_raw()
                batch = [item for item in batch if not item.receiver.done()]
                if not batch:
                    return connection
                async with asyncio.timeout(self._timeout_seconds):
                    results = await self._send(connection, batch)
        except BaseException as error:
            if connection is not None and not connection.is_closed() and is_of_statement(error):
                return await self._process_apart(number, connection, batch, error)
            if connection is not None:
                connection.terminate()
            self._note_failure(error)
            if isinstance(error, asyncio.CancelledError):
                fail(batch, self._stopping_error())
                raise
            if not isinstance(error, FactoryLogsError):
                _log.exception("a batch failed", batcher=self._name, items=len(batch))
            fail(batch, error)
            return None
        self._resolve(batch, results, time.perf_counter() - started)
        return connection

    async def _process_apart(
        self, number: int, connection: asyncpg.Connection | None, batch: list[Item], error: BaseException
    ) -> asyncpg.Connection | None:
        """Send the halves of a batch whose statement failed, so that only the items that have caused the error fail."""
        if len(batch) == 1:
            refused = refusal(error)
            if refused is None:
                _log.error("an item failed", batcher=self._name, exc_info=error)
            fail(batch, refused or error)
            return connection
        middle = len(batch) // 2
        try:
            connection = await self._process(number, connection, batch[:middle])
        except BaseException:
            fail(batch[middle:], self._stopping_error())
            raise
        return await self._process(number, connection, batch[middle:])

    def _fail_waiting(self, error: FactoryLogsError) -> None:
        fail(self._waiting, error)
        self._waiting.clear()


def fail(items: Iterable[Waiter], error: BaseException) -> None:
    """End each waiting item with this error."""
    for item in items:
        if not item.receiver.done():
            item.receiver.set_exception(error)

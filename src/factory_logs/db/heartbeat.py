"""Whether PostgreSQL answers at all, asked once a second on a connection of its own.

A server that is stopped, cut off or starting keeps its connections open and says nothing; without this, each request
would find that out for itself, one time-out after the other, and hold a connection meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import asyncpg
import structlog

BEAT_SECONDS = 1.0
RETRY_SECONDS = 0.2
"""How soon a server that did not answer is asked again: so soon the service is back after it."""
TURNS = 20
_AWAY = ("08", "57P")
"""SQLSTATE classes of a server that breaks off, starts or stops."""

_log = structlog.get_logger(__name__)


class Heartbeat:
    """`answers` and `losses` are what was last seen; `run` must run beside the requests, or both stay as they are.

    `on_silence` is called when the server stops answering.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection]], seconds: float, on_silence: Callable[[], None]
    ) -> None:
        self.answers = True
        self.losses = 0
        """How often the heartbeat has lost its connection: connections opened before the last loss are suspect."""
        self._connect = connect
        self._seconds = seconds
        self.on_silence = on_silence
        self._connection: asyncpg.Connection | None = None

    async def run(self) -> None:
        """Ask for ever, until cancelled: without it a server that was away once would count as away for ever."""
        try:
            while True:
                try:
                    self._note(await self._beat())
                except Exception:  # noqa: BLE001 - whatever it is, the next beat may go well
                    _log.exception("the heartbeat failed")
                    self._lose()
                await asyncio.sleep(BEAT_SECONDS if self.answers else RETRY_SECONDS)
        finally:
            self._lose()

    async def _beat(self, tries: int = 2) -> bool:
        try:
            if self._connection is None:
                self._connection = await self._connect()
            await self._in_time(self._connection.fetchval("SELECT 1"))
        except TimeoutError:
            self._lose()
            return False
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
            was_cut = self._connection is not None
            self._lose()
            if was_cut and tries > 1:  # which says nothing of the server yet
                return await self._beat(tries - 1)
            # One that is full, or does not let us in, answers after all.
            return isinstance(error, asyncpg.PostgresError) and not str(error.sqlstate).startswith(_AWAY)
        return True

    async def _in_time(self, question: Coroutine[Any, Any, object]) -> None:
        """Raises TimeoutError. A time in which this process itself had no time to look counts as one turn only."""
        asking = asyncio.create_task(question)
        try:
            for _ in range(TURNS):
                await asyncio.wait({asking}, timeout=self._seconds / TURNS)
                if asking.done():
                    await asking
                    return
        finally:
            asking.cancel()
        raise TimeoutError

    def _note(self, answers: bool) -> None:
        if answers == self.answers:
            return
        self.answers = answers
        if answers:
            _log.info("the database answers again")
        else:
            _log.warning("the database does not answer")
            self.on_silence()

    def _lose(self) -> None:
        if self._connection is not None:
            self.losses += 1
            with suppress(Exception):
                self._connection.terminate()
            self._connection = None

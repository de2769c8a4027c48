"""Check once a second on a separate connection whether PostgreSQL responds.

A server that is stopped, unreachable or starting leaves its connections open and sends nothing. Without the heartbeat,
each request would wait for its own timeout, and hold a connection until then.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import asyncpg
import structlog

from factory_logs.errors import DatabaseConnectError

BEAT_SECONDS = 1.0
RETRY_SECONDS = 0.2
"""The time until a server that did not respond is checked again. The service becomes available at most this long after
the server."""
TURNS = 20
_AWAY = ("08", "57P")
"""The SQLSTATE classes that a server sends while it starts, stops or closes connections."""

_log = structlog.get_logger(__name__)


class Heartbeat:
    """Checks PostgreSQL: `is_responding` is the result of the last check. `run` must run in the background.

    `on_silence` is called when the server stops responding.
    """

    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection]], seconds: float, on_silence: Callable[[], None]
    ) -> None:
        self.is_responding = True
        self.losses = 0
        """The number of times that the heartbeat lost its connection. Connections from before the last loss may be lost
        too."""
        self._connect = connect
        self._seconds = seconds
        self.on_silence = on_silence
        self._connection: asyncpg.Connection | None = None
        self._reason: str | None = None

    async def run(self) -> None:
        """Check PostgreSQL repeatedly until cancelled."""
        try:
            while True:
                try:
                    self._note(await self._beat())
                except Exception:  # noqa: BLE001 - the next beat may succeed
                    _log.exception("the heartbeat failed")
                    self._lose()
                await asyncio.sleep(BEAT_SECONDS if self.is_responding else RETRY_SECONDS)
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
        except DatabaseConnectError as error:
            self._note_reason(error.reason)
            # A server that is full, or refuses the login, does respond.
            return error.sqlstate is not None and not error.sqlstate.startswith(_AWAY)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            self._lose()
            # A cut connection does not prove that the server is unavailable.
            return tries > 1 and await self._beat(tries - 1)
        self._note_reason(None)
        return True

    async def _in_time(self, question: Coroutine[Any, Any, object]) -> None:
        """Wait for the response. Raises TimeoutError. A pause of this process counts as a single attempt."""
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

    def _note_reason(self, reason: str | None) -> None:
        """Log the reason why no connection can be opened, and each reason only once."""
        if reason is not None and reason != self._reason:
            _log.warning("cannot connect to the database", reason=reason)
        self._reason = reason

    def _note(self, is_responding: bool) -> None:
        if is_responding == self.is_responding:
            return
        self.is_responding = is_responding
        if is_responding:
            _log.info("the database responds again")
        else:
            _log.warning("the database does not respond")
            self.on_silence()

    def _lose(self) -> None:
        if self._connection is not None:
            self.losses += 1
            with suppress(Exception):
                self._connection.terminate()
            self._connection = None

"""The event loop of a worker: uvloop, with a listener that accepts all waiting connections at once.

uvloop accepts one connection in each turn of the event loop. A turn of a busy worker also serves all requests that have
arrived, so it may take a second. If many clients connected to such a worker at the same time, the last of them waited
for minutes (docs/explanation/decisions.md).
"""

import asyncio
import socket
from collections.abc import Callable

import structlog
import uvloop

RETRY_SECONDS = 1.0
_log = structlog.get_logger(__name__)


class EventLoop(uvloop.Loop):
    """uvloop's event loop with a `Listener`."""

    async def create_server(  # type: ignore[override]
        self, protocol_factory: Callable[[], asyncio.Protocol], *, sock: socket.socket, backlog: int, ssl: None = None
    ) -> "Listener":
        """Listen on a bound socket. uvicorn passes these arguments only."""
        sock.setblocking(False)
        sock.listen(backlog)
        return Listener(self, protocol_factory, sock, backlog)


class Listener:
    """Accepts the connections of a listening socket. It has the methods of `asyncio.Server` that uvicorn calls."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: Callable[[], asyncio.Protocol],
        listening: socket.socket,
        backlog: int,
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._socket = listening
        self._backlog = backlog
        self._connecting: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._retry: asyncio.TimerHandle | None = None
        self._listen()

    def close(self) -> None:
        """Accept no more connections. The socket and the accepted connections stay open."""
        self._is_closed = True
        if self._retry is not None:
            self._retry.cancel()
        self._loop.remove_reader(self._socket)

    async def wait_closed(self) -> None:
        """Return at once, because uvicorn waits for the connections itself."""

    def _listen(self) -> None:
        self._loop.add_reader(self._socket, self._accept_waiting)

    def _accept_waiting(self) -> None:
        """Accept the waiting connections. The backlog limits their number, so that other workers get some of them."""
        for _ in range(self._backlog):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                _log.error("cannot accept a connection", reason=error.strerror)
                self._loop.remove_reader(self._socket)
                self._retry = self._loop.call_later(RETRY_SECONDS, self._listen)
                return
            task = self._loop.create_task(self._connect(accepted))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        _, protocol = await self._loop.connect_accepted_socket(self._protocol_factory, accepted)
        if self._is_closed:
            # uvicorn has closed the connections that it knew, or lets them end after their response.
            protocol.shutdown()  # type: ignore[attr-defined]

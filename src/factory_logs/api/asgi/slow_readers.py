"""Disconnect clients that do not read their responses, because the unread bytes are held in memory."""

import asyncio


class UnsentBytes:
    """The unsent bytes of the slow clients of a worker. Over the limit, the client that has been slow the longest is
    disconnected."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._sizes: dict[asyncio.Transport, int] = {}
        """The first client has been slow the longest."""

    def count(self, transport: asyncio.Transport, size: int) -> None:
        sizes = self._sizes
        sizes[transport] = size
        while len(sizes) > 1 and sum(sizes.values()) > self._limit:
            slowest = next(iter(sizes))
            del sizes[slowest]
            slowest.abort()

    def forget(self, transport: asyncio.Transport) -> None:
        self._sizes.pop(transport, None)


class SendTimer:
    """Disconnects a client that reads nothing of its response for `seconds`."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, seconds: float, transport: asyncio.Transport, unsent: UnsentBytes
    ) -> None:
        self._loop = loop
        self._seconds = seconds
        self._transport = transport
        self._unsent = unsent
        self._timer: asyncio.TimerHandle | None = None

    def start(self, left: int | None = None) -> None:
        """Start the timer. `left` is the number of bytes that were unsent when it was started before."""
        waiting = self._transport.get_write_buffer_size()
        if waiting == left:
            self._transport.abort()
            return
        self._cancel()
        self._timer = self._loop.call_later(self._seconds, self.start, waiting)
        self._unsent.count(self._transport, waiting)

    def stop(self) -> None:
        self._cancel()
        self._unsent.forget(self._transport)

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

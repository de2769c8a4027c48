"""Limit how long a connection waits for its client: for a head, the rest of a body, or the next request."""

import asyncio
from collections.abc import Callable

from factory_logs.settings import Settings


class ConnectionTimers:
    """The timers of one connection. Each closes it, except that of a head: that calls `on_late_head`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        settings: Settings,
        keep_alive_seconds: float,
        transport: asyncio.Transport,
        on_late_head: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._keep_alive_seconds = keep_alive_seconds
        self._transport = transport
        self._on_late_head = on_late_head
        self._head: asyncio.TimerHandle | None = None
        self._leftover: asyncio.TimerHandle | None = None
        self._half_closed: asyncio.TimerHandle | None = None
        self._idle: asyncio.TimerHandle | None = None
        self.idle_since: float | None = None
        """The time of the last response, or None while a request is being received or processed."""

    def start_head(self) -> None:
        """Limit the time for a head, from its first byte or from the start of the connection."""
        if self._head is None:
            self._head = self._loop.call_later(self._settings.head_seconds, self._on_late_head)

    def stop_head(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def start_leftover(self) -> None:
        """Limit the time for the rest of a body whose response, such as a 401, was sent before it had arrived."""
        self._leftover = self._loop.call_later(self._settings.leftover_body_seconds, self._transport.close)

    def stop_leftover(self) -> None:
        if self._leftover is not None:
            self._leftover.cancel()
            self._leftover = None

    def start_half_closed(self) -> None:
        """Limit the time for the response to a client that has closed its side: one that has disconnected looks the
        same."""
        if self._half_closed is None:
            self._half_closed = self._loop.call_later(self._settings.half_closed_seconds, self._transport.abort)

    def stop_half_closed(self) -> None:
        if self._half_closed is not None:
            self._half_closed.cancel()

    def begin_idling(self) -> None:
        """Close the connection after `keep_alive_seconds` without a next request.

        A connection has one timer, which is restarted if it fires too early. A timer for each request would cost more.
        """
        self.idle_since = self._loop.time()
        if self._idle is None:
            self._idle = self._loop.call_later(self._keep_alive_seconds, self._on_idle)

    def _on_idle(self) -> None:
        self._idle = None
        if self.idle_since is None:
            return
        left = self.idle_since + self._keep_alive_seconds - self._loop.time()
        if left > 0:
            self._idle = self._loop.call_later(left, self._on_idle)
        else:
            self._transport.close()

    def stop(self) -> None:
        """Stop all timers."""
        for timer in (self._head, self._leftover, self._half_closed, self._idle):
            if timer is not None:
                timer.cancel()

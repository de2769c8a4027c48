"""Send the responses of one turn of the event loop together, and each response with one write.

uvicorn writes the head and the body of a response separately, and writing is the most expensive step of a small
response (docs/explanation/hot-path.md).
"""

import asyncio
from collections.abc import Callable
from typing import Any

GATHERED_BYTES = 64 * 1024


class Outbox:
    """The responses of one turn of the event loop, of all connections of a worker. They are sent together.

    Sending each response as soon as it is complete was slower: reads of logs by id lost a fifth of their throughput.
    Each write wakes a client, which takes the CPU core while other responses are not built yet.
    """

    def __init__(self) -> None:
        self._transports: list[GatheringTransport] = []

    def add(self, transport: "GatheringTransport") -> None:
        if not self._transports:
            asyncio.get_running_loop().call_soon(self._flush)
        self._transports.append(transport)

    def _flush(self) -> None:
        transports, self._transports = self._transports, []
        for transport in transports:
            transport.flush()


class GatheringTransport:
    """A transport that collects its writes up to a limit, until the outbox sends them."""

    def __init__(self, transport: asyncio.Transport, outbox: Outbox, on_close: Callable[[], None]) -> None:
        self._transport = transport
        self._outbox = outbox
        self._on_close = on_close
        self._parts: list[bytes] = []
        self._size = 0
        self.is_closing = transport.is_closing  # an attribute, because it is called often and `__getattr__` is slower

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._outbox.add(self)
        self._parts.append(data)
        self._size += len(data)
        if self._size >= GATHERED_BYTES:
            self.flush()

    def close(self) -> None:
        self.flush()
        self._transport.close()
        self._on_close()

    def flush(self) -> None:
        if self._parts:
            data, self._parts, self._size = b"".join(self._parts), [], 0
            self._transport.write(data)

    def discard(self) -> None:
        """Drop the collected writes of a lost connection.

        uvloop raises an error for a write to it, and the outbox would then not send the responses after this one.
        """
        self._parts, self._size = [], 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

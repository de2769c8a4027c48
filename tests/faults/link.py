"""A TCP proxy between the service and PostgreSQL, which can withhold responses and cut connections."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Hold:
    """The responses to withhold: on a connection that has carried `request`, all responses from the one that contains
    `response`."""

    request: bytes
    response: bytes


class Conversation:
    """The bytes of one connection that a hold needs."""

    def __init__(self) -> None:
        self._end_of_requests = b""
        self._concerns: Hold | None = None
        self._held: Hold | None = None

    def ask(self, request: bytes, hold: Hold | None) -> None:
        if hold is None:
            return
        seen = self._end_of_requests + request  # the searched bytes may have arrived in two pieces
        if hold.request in seen:
            self._concerns = hold
        self._end_of_requests = seen[-len(hold.request) :]

    def is_held(self, response: bytes, hold: Hold) -> bool:
        if (not hold.request or self._concerns is hold) and hold.response in response:
            self._held = hold
        return self._held is hold


class Link:
    """Forwards everything until a test changes that. Use it as a context manager. Its methods are thread-safe."""

    def __init__(self, server_port: int) -> None:
        self.port = 0  # until it has started
        self.server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._passing = asyncio.Event()
        self._passing.set()
        self._hold: Hold | None = None
        self._transports: set[asyncio.WriteTransport] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="link")

    def __enter__(self) -> "Link":
        self._thread.start()
        self._started.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def hold_responses(self, beginning_with: bytes = b"", *, to: bytes = b"") -> None:
        """PostgreSQL receives requests, but the service receives no responses: on each connection from now on, or from
        a response with these bytes. With `to`, only on a connection that carries these bytes to PostgreSQL from now on;
        the other connections, also those of background tasks, continue.

        The last response of a transaction contains `COMMIT` and a zero.
        """
        self._call(lambda: self._begin(Hold(to, beginning_with)))

    def _begin(self, hold: Hold) -> None:
        self._hold = hold
        self._passing.clear()

    def pass_responses(self) -> None:
        self._call(self._end)

    def _end(self) -> None:
        self._hold = None
        self._passing.set()

    def cut(self) -> None:
        """Close all connections at once, and drop the bytes in transit. New ones are taken."""
        self._call(self._cut)

    def _call(self, work: Callable[[], T]) -> T:
        async def call() -> T:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _cut(self) -> None:
        for transport in self._transports:
            transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        listener = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", 0))
        self.port = listener.sockets[0].getsockname()[1]
        self._started.set()
        self._loop.run_forever()
        listener.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self.server_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer.transport, server_writer.transport}
        self._transports |= both
        conversation = Conversation()

        async def ask(request: bytes) -> None:
            conversation.ask(request, self._hold)

        async def response(response: bytes) -> None:
            if self._hold is not None and conversation.is_held(response, self._hold):
                await self._passing.wait()

        directions = {
            asyncio.create_task(self._pump(reader, server_writer, ask)),
            asyncio.create_task(self._pump(server_reader, writer, response)),
        }
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in directions:
                task.cancel()
            await asyncio.gather(*directions, return_exceptions=True)
            self._transports -= both
            for transport in both:
                transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        allowed: Callable[[bytes], Awaitable[object]],
    ) -> None:
        while data := await reader.read(65536):
            await allowed(data)
            writer.write(data)
            await writer.drain()

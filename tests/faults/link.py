"""A TCP proxy between the service and PostgreSQL, which can withhold answers and cut connections."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from tests.serving import free_port

T = TypeVar("T")


class Link:
    """Passes all on, until it is told to do otherwise. A context; its methods may be called from any thread."""

    def __init__(self, server_port: int) -> None:
        self.port = free_port()
        self.server_port = server_port
        self._loop = asyncio.new_event_loop()
        self._answers = asyncio.Event()
        self._answers.set()
        self._held_from = b""
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

    def hold_answers(self, beginning_with: bytes = b"") -> None:
        """PostgreSQL hears the service, and the service hears nothing: from now on, or from an answer with these bytes.

        A transaction's last answer has `COMMIT` and a zero in it.
        """
        self._call(lambda: self._hold(beginning_with))

    def _hold(self, beginning_with: bytes) -> None:
        self._held_from = beginning_with
        if not beginning_with:
            self._answers.clear()

    def pass_answers(self) -> None:
        self._held_from = b""
        self._call(self._answers.set)

    def cut(self) -> None:
        """End all connections at once, with what is on its way. New ones are taken."""
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
        listener = self._loop.run_until_complete(asyncio.start_server(self._connection, "127.0.0.1", self.port))
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
        directions = {
            asyncio.create_task(self._pump(reader, server_writer)),
            asyncio.create_task(self._pump(server_reader, writer, self._allowed)),
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

    async def _allowed(self, answer: bytes) -> None:
        if self._held_from and self._held_from in answer:
            self._answers.clear()
        await self._answers.wait()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        allowed: Callable[[bytes], Awaitable[object]] | None = None,
    ) -> None:
        while data := await reader.read(65536):
            if allowed is not None:
                await allowed(data)
            writer.write(data)
            await writer.drain()

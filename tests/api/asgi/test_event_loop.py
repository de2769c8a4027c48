"""A worker's event loop accepts all waiting connections in one turn."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import uvloop

from factory_logs.api.asgi.event_loop import EventLoop

CONNECTIONS = 200
PATIENCE_SECONDS = 60


async def turns_of_accepts() -> int:
    """Return the number of turns of the event loop in which waiting connections were accepted."""
    turns: set[int] = set()
    made: list[Any] = []
    turn = 0

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            made.append(transport)
            turns.add(turn)

    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS))
        server = await loop.create_server(Protocol, sock=listening, backlog=CONNECTIONS)
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(made) < CONNECTIONS:
                await asyncio.sleep(0)
                turn += 1
        server.close()
        for transport in made:
            transport.abort()
        await asyncio.sleep(0)
    return len(turns)


def run(loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> int:
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(turns_of_accepts())


def test_waiting_connections_are_accepted_together() -> None:
    assert run(EventLoop) < CONNECTIONS / 10


def test_the_listener_is_still_needed_because_uvloop_accepts_one_connection_in_a_turn() -> None:
    assert run(uvloop.new_event_loop) > CONNECTIONS / 2


async def _shut_down_of_accepted() -> tuple[int, int]:
    """Close the listener while it connects what it has accepted; return how many of how many were shut down."""
    made: list[asyncio.BaseTransport] = []
    ended: list[asyncio.Protocol] = []

    class Closing(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            made.append(transport)
            server.close()

        def shutdown(self) -> None:
            ended.append(self)

    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS))
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(listening.getsockname()))
        server = await loop.create_server(Closing, sock=listening, backlog=CONNECTIONS)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(made) == 0 or len(ended) < len(made):
                await asyncio.sleep(0.01)
        for transport in made:
            transport.close()
    return len(ended), len(made)


def test_connections_that_are_made_after_the_listener_closed_are_shut_down() -> None:
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        ended, made = runner.run(_shut_down_of_accepted())
    assert ended == made > 1


async def _responds_after_the_listener_closed() -> bytes:
    """Return what an accepted connection receives after its listener was closed."""

    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self._transport = transport

        def data_received(self, data: bytes) -> None:
            self._transport.write(data)

    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = await loop.create_server(Echo, sock=listening, backlog=5)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        writer.write(b"one")
        assert await reader.readexactly(3) == b"one"
        server.close()
        await server.wait_closed()
        writer.write(b"two")
        received = await reader.readexactly(3)
        writer.close()
    return received


def test_an_accepted_connection_survives_the_end_of_its_listener() -> None:
    with asyncio.Runner(loop_factory=EventLoop) as runner:
        assert runner.run(_responds_after_the_listener_closed()) == b"two"

"""The connections of a worker share one outbox."""

import asyncio
import socket
import struct

import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from factory_logs.api.asgi.uvicorn_protocol import JsonHttpProtocol
from factory_logs.api.http.responses import JsonResponse

REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
RESET_AT_CLOSE = struct.pack("ii", 1, 0)


class Service:
    """Responds to all requests in the same turn of the event loop."""

    def __init__(self) -> None:
        self.waiting = 0
        self.go = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.waiting += 1
        await self.go.wait()
        await JsonResponse(b"{}")(scope, receive, send)


async def sent_to(service: Service, address: tuple[str, int]) -> socket.socket:
    """Return a connection whose request has reached the service."""
    before = service.waiting
    connection = socket.create_connection(address)
    connection.sendall(REQUEST)
    while service.waiting == before:
        await asyncio.sleep(0.001)
    return connection


async def response_beside_a_reset() -> bytes:
    """Return the response on a connection while an earlier one is reset between its response and the outbox."""
    service, state = Service(), ServerState()
    config = uvicorn.Config(service, lifespan="off", ws="none", log_config=None, timeout_keep_alive=3600)
    config.load()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: JsonHttpProtocol(config, state, {}), "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        reset = await sent_to(service, address)
        with await sent_to(service, address) as kept:
            reset.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_AT_CLOSE)
            service.go.set()  # both responses are written in the next turn, and only then the loss is noticed
            reset.close()
            kept.setblocking(False)
            async with asyncio.timeout(60):
                received = await loop.sock_recv(kept, 65536)
                kept.close()
                while state.connections:
                    await asyncio.sleep(0.001)
    return received


def test_a_connection_that_is_reset_does_not_hold_back_the_responses_of_others() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(response_beside_a_reset()).startswith(b"HTTP/1.1 200 ")

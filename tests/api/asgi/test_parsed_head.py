"""A request whose head repeats the previous one is read as on a connection of its own."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple

import orjson
import pytest
import uvicorn
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from factory_logs.api.asgi.parsed_head import ParsedHead, Repeated
from factory_logs.api.asgi.uvicorn_protocol import JsonHttpProtocol
from factory_logs.api.http.responses import JsonResponse

SECONDS = 60
_CLIENT = re.compile(rb'"client":\[[^]]*\]')
_REQUEST_ID = re.compile(rb'"request_id":"[^"]*"')


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Respond with the scope and the body, and change the scope as applications may."""
    body = b""
    more = True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    text = orjson.dumps({**scope, "body": body}, default=lambda value: value.decode("latin-1"))
    scope["path"] = scope["method"] = "changed"
    scope["headers"].append((b"changed", b"1"))
    scope["state"]["changed"] = True
    await JsonResponse(text)(scope, receive, send)


class Service(NamedTuple):
    """A port that echoes requests, the requests that repeated a head, and for each segment that has arrived whether the
    service has closed the connection."""

    port: int
    repeated: list[Repeated]
    arrived: list[bool]


@pytest.fixture
async def service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    repeated: list[Repeated] = []
    match = ParsedHead.match

    def noted(self: ParsedHead, data: bytes) -> Repeated | None:
        found = match(self, data)
        if found is not None:
            repeated.append(found)
        return found

    monkeypatch.setattr(ParsedHead, "match", noted)
    arrived: list[bool] = []

    class Protocol(JsonHttpProtocol):
        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            arrived.append(self.transport.is_closing())

    config = uvicorn.Config(echo, lifespan="off", ws="none", log_config=None, timeout_keep_alive=3600)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: Protocol(config, state, {"given": True}), "127.0.0.1", 0
    )
    async with server:
        yield Service(server.sockets[0].getsockname()[1], repeated, arrived)
        for connection in list(state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        while state.connections:
            await asyncio.sleep(0.001)


class Connection:
    """A connection of a client that waits for each response."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, service: Service) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer

    @property
    def is_closed(self) -> bool:
        return self._reader.at_eof()

    async def send(self, *parts: bytes) -> bytes:
        """Send the parts of a request, each when the service has read the one before. Return its response, without the
        values that differ on each connection."""
        arrived = self._service.arrived
        arrived.clear()
        async with asyncio.timeout(SECONDS):
            for number, part in enumerate(parts):
                while len(arrived) < number:
                    await asyncio.sleep(0)
                if not any(arrived):
                    self._writer.write(part)
        return await self.response()

    async def response(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 100 "):
                head = await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            assert length is not None
            body = await self._reader.readexactly(int(length[1]))
            if b"connection: close" in head:
                assert await self._reader.read() == b""
        status = head.partition(b"\r\n")[0]
        return status + _REQUEST_ID.sub(b"", _CLIENT.sub(b"", body))


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[Connection]:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        yield Connection(reader, writer, service)
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


CHUNKED = b"1\r\na\r\n0\r\n\r\n"
BODIES = st.sampled_from((b"", b"a", b"a" * 9, b"b" * 10, b"\r\n\r\n", CHUNKED))
REQUEST_LINES = st.sampled_from(
    ("POST /a?b=c HTTP/1.1",) * 4
    + ("POST /%61 HTTP/1.1", "PUT /a?b=c HTTP/1.1", "POST http://other.test/a HTTP/1.1", "POST /a HTTP/1.0")
)
HEADERS = st.lists(
    st.sampled_from(
        (
            "A: 1", "a: 1", "A: Content-Length: 1", "Host: second.test", "Connection: close", "Connection: keep-alive",
            "Expect: 100-continue", "Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked",
            "Content-Length: 1", " folded: 1", "Connection: Upgrade\r\nUpgrade: h2c",
        )
    ),
    max_size=1,
)  # fmt: skip
NAMES = st.sampled_from(("Content-Length: ", "content-length: ", "CONTENT-LENGTH: ", "Content-Length:", None))


@st.composite
def requests(draw: st.DrawFn) -> list[bytes]:
    """Return requests of which most have the same head, apart from the length of the body."""
    line, headers, name = draw(REQUEST_LINES), draw(HEADERS), draw(NAMES)
    is_last = draw(st.booleans())
    texts = []
    for body in draw(st.lists(BODIES, min_size=2, max_size=5)):
        if draw(st.integers(0, 4)) == 0:
            line = draw(REQUEST_LINES)
        if draw(st.integers(0, 4)) == 0:
            headers = draw(HEADERS)
        length = [] if name is None else [f"{name}{len(body)}"]
        if name is None:  # otherwise the service would wait for more
            body = {"Transfer-Encoding: chunked": CHUNKED, "Content-Length: 1": b"a"}.get("".join(headers), b"")
        lines = [line, "Host: logs.test", *([] if is_last else length), *headers, *(length if is_last else [])]
        texts.append("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
    return texts


def head(length: int, other: str = "") -> bytes:
    return f"POST /a HTTP/1.1\r\nHost: logs.test\r\n{other}Content-Length: {length}\r\n\r\n".encode()


def chunked_head() -> bytes:
    return b"POST /a HTTP/1.1\r\nHost: logs.test\r\nTransfer-Encoding: chunked\r\n\r\n"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(sent=requests(), cut=st.sampled_from((0.0, 0.0, 0.0, 0.3, 0.9)))
@example(sent=[head(3) + b"abc", head(10) + b"0123456789", head(0)], cut=0.0)
@example(sent=[head(3, "Transfer-Encoding: chunked\r\n") + b"abc"] * 2, cut=0.0)
@example(sent=[head(1, "Expect: 100-continue\r\n") + b"a"] * 2, cut=0.0)
@example(sent=[head(len(body), "Connection: Upgrade\r\nUpgrade: h2c\r\n") + body for body in (b"", b"a", b"")], cut=0.0)
@example(sent=[chunked_head() + b"0\r\nContent-Length: %d\r\n\r\n" % trailer for trailer in (0, 25)], cut=0.0)
async def test_a_request_is_read_as_on_its_own_connection(service: Service, sent: list[bytes], cut: float) -> None:
    async with AsyncExitStack() as stack:
        shared = await stack.enter_async_context(connected(service))
        for request in sent:
            if shared.is_closed:
                shared = await stack.enter_async_context(connected(service))
            at = round(len(request) * cut)
            response = await shared.send(*filter(None, (request[:at], request[at:])))
            async with connected(service) as own:
                assert await own.send(request) == response


async def test_a_repeated_head_is_recognised_for_any_length_of_the_body(service: Service) -> None:
    async with connected(service) as connection:
        for number, body in enumerate((b"abc", b"abc", b"0123456789", b"a", b"", b"x" * 10_000)):
            response = await connection.send(head(len(body)) + body)
            assert b'"body":"%b"' % body in response
            assert len(service.repeated) == number


@pytest.mark.parametrize(
    "other", ["Connection: close\r\n", "Expect: 100-continue\r\n", "Connection: Upgrade\r\nUpgrade: h2c\r\n"]
)
async def test_a_head_with_an_effect_on_its_connection_is_always_parsed(service: Service, other: str) -> None:
    async with connected(service) as connection:
        for _ in range(2):
            if not connection.is_closed:
                await connection.send(head(1, other) + b"a")
    assert service.repeated == []


async def test_requests_after_a_repeated_head_are_parsed(service: Service) -> None:
    async with connected(service) as connection:
        first = await connection.send(head(1) + b"a")
        assert await connection.send(head(1) + b"a" + head(1) + b"a") == first
        assert await connection.response() == first
        for _ in range(2):
            assert await connection.send(head(1) + b"a") == first
    assert len(service.repeated) == 2


async def test_the_second_part_of_a_head_is_not_repeated_by_a_request_of_the_same_bytes(service: Service) -> None:
    request = b"PUT /b HTTP/1.1\r\nHost: logs.test\r\nContent-Length: 1\r\n\r\na"
    async with connected(service) as connection, connected(service) as own:
        await connection.send(b"POST /a HTTP/1.1\r\nX: ", request)
        assert await connection.send(request) == await own.send(request)
    assert service.repeated == []

"""The short way of a request and its response sends the same bytes as ASGI's messages, or leaves the work to them."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.types import Message
from uvicorn.protocols.http.flow_control import FlowControl

from factory_logs.api.http.exchange import Exchange, find_exchange
from factory_logs.api.http.responses import JsonResponse, NoContentResponse

HEADERS = {"Location": "http://x/v1/factory_logs/7", "X-Request-ID": "7"}


class Written(asyncio.Transport):
    """A transport that remembers the bytes written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.data += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Started:
    """An exchange whose request has arrived with its body, on a transport of its own."""

    def __init__(self, *, body: bytes = b"{}", keep_alive: bool = True, expects_continue: bool = False) -> None:
        self.transport = Written()
        self.completed = 0
        self.exchange = Exchange(
            scope={"type": "http", "method": "POST"},  # type: ignore[typeddict-item]
            transport=self.transport,
            flow=FlowControl(self.transport),
            logger=logging.getLogger(__name__),
            access_logger=logging.getLogger(__name__),
            access_log=False,
            default_headers=[(b"date", b"Fri, 27 Nov 2026 12:00:00 GMT")],
            message_event=asyncio.Event(),
            expect_100_continue=expects_continue,
            keep_alive=keep_alive,
            on_response=self._complete,
        )
        self.exchange.body += body
        self.exchange.more_body = False
        self.exchange.message_event.set()

    def _complete(self) -> None:
        self.completed += 1


def response(status: int) -> JsonResponse:
    return NoContentResponse([(b"x-request-id", b"7")]) if status == 204 else JsonResponse(b"[1]", status, HEADERS)


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("status", [200, 201, 204, 400, 503])
async def test_a_response_has_the_same_bytes_as_its_messages(status: int, keep_alive: bool) -> None:
    short, long = Started(keep_alive=keep_alive), Started(keep_alive=keep_alive)

    async def send(message: Message) -> None:
        await long.exchange.send(message)  # type: ignore[arg-type]

    await response(status)({}, short.exchange.receive, short.exchange.send)  # type: ignore[arg-type]
    await response(status)({}, long.exchange.receive, send)  # type: ignore[arg-type]
    assert short.transport.data == long.transport.data != b""
    assert short.transport.closed == long.transport.closed is not keep_alive
    assert short.completed == long.completed == 1
    assert await short.exchange.receive() == {"type": "http.disconnect"}


@pytest.mark.parametrize("value", [b"a\nb: c", b"a\rb: c", b"a\r\nb: c"])
async def test_no_header_contains_a_line_end(value: bytes) -> None:
    started = Started()
    with pytest.raises(RuntimeError, match="line end"):
        started.exchange.respond(204, [(b"location", value)], b"")
    assert started.transport.data == b""


async def test_while_the_client_reads_earlier_responses_the_messages_wait() -> None:
    started = Started()
    started.exchange.flow.pause_writing()
    assert not started.exchange.respond(204, [], b"")
    assert started.transport.data == b""


async def test_after_the_client_has_gone_nothing_is_sent() -> None:
    started = Started()
    started.exchange.disconnected = True
    assert started.exchange.respond(204, [], b"")
    assert started.transport.data == b""
    assert started.exchange.whole_body() is None


async def test_a_response_is_sent_once() -> None:
    started = Started()
    assert started.exchange.respond(204, [], b"")
    assert not started.exchange.respond(204, [], b"")


async def test_a_body_is_whole_once() -> None:
    started = Started(body=b"[1]")
    assert started.exchange.whole_body() == b"[1]"
    assert started.exchange.whole_body() is None


async def test_a_received_body_is_not_whole_again() -> None:
    started = Started(body=b"[1]")
    assert (await started.exchange.receive())["body"] == b"[1]"  # type: ignore[typeddict-item]
    assert started.exchange.whole_body() is None


async def test_a_body_that_still_arrives_is_not_whole() -> None:
    started = Started()
    started.exchange.more_body = True
    assert started.exchange.whole_body() is None


async def test_a_client_that_waits_for_100_continue_gets_it() -> None:
    started = Started(expects_continue=True)
    assert started.exchange.whole_body() is None
    await started.exchange.receive()
    assert started.transport.data == b"HTTP/1.1 100 Continue\r\n\r\n"


async def test_a_layer_that_wraps_the_messages_sees_them() -> None:
    started = Started()

    async def send(message: Message) -> None: ...

    assert find_exchange(started.exchange.send) is started.exchange  # type: ignore[arg-type]
    assert find_exchange(send) is None

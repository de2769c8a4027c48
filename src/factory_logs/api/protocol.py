"""uvicorn's HTTP protocol, as this service speaks it; `serve` names it as its `http`.

What is no HTTP at all never reaches the application, so here it is answered in the one body of every error (SPEC 3).
And an answer leaves in one write: uvicorn writes its head and its body apart, and a write is the dearest thing that a
small answer does (docs/hot-path.md).

uvicorn bounds neither how long a request's head may be or take, nor how many connections there are; here all three are.
"""

import asyncio
import secrets
from functools import cache
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from factory_logs.settings import Settings

GATHERED_BYTES = 64 * 1024


class _HeadError(Exception):
    """Ends the parsing of a request whose head is over a limit."""


@cache
def _settings() -> Settings:
    """uvicorn hands its protocol no settings; a worker's are those of its environment."""
    return Settings()


class JsonHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with JSON for an unreadable request, one write for an answer, and bounds."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._settings = _settings()
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._leftover_timer: asyncio.TimerHandle | None = None
        self._in_head = False
        """Whether a head has begun to arrive and is not complete."""
        self._head_bytes = 0
        self._unparsed_bytes = 0
        self._fault: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport))  # type: ignore[arg-type]
        if len(self.connections) > self._settings.max_connections:
            self._refuse("503 Service Unavailable", "There are too many connections", "retry-after: 1\r\n")
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget(self._head_timer)
        self._forget(self._send_timer)
        self._forget(self._leftover_timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():  # what it still sends after a refusal
            return
        # The parser keeps the beginning of whatever is not complete, however long it is.
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_timer is None and not self.transport.is_closing():
            self._expect_head()
        if self._unparsed_bytes > self._settings.max_head_bytes and not self.transport.is_closing():
            self._fault = f"A part of the request is over the limit of {self._settings.max_head_bytes} bytes"
            self.send_400_response(self._fault)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._unparsed_bytes = 0
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        if len(self.headers) >= self._settings.max_headers:
            self._fault = f"The request has more than {self._settings.max_headers} headers"
            raise _HeadError
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._forget(self._head_timer)
        self._head_timer = None
        self._unparsed_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        super().on_message_complete()
        if self._leftover_timer is not None:
            self._leftover_timer.cancel()
            self._leftover_timer = None
            # uvicorn forgets its own timer as soon as more of the body comes.
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body and not self.transport.is_closing():
            # Answered before its body had come, such as by a 401: nobody else waits for the rest.
            self._leftover_timer = self.loop.call_later(self._settings.leftover_body_seconds, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_reading()

    def resume_writing(self) -> None:
        self._forget(self._send_timer)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Answer, and close the connection: where the next request begins is not known."""
        self._refuse("400 Bad Request", self._fault or msg)

    def _refuse(self, status: str, message: str, header: str = "") -> None:
        body = orjson.dumps({"message": message, "request_id": secrets.token_hex(8)})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{header}"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()

    def _count_head(self, size: int) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._settings.max_head_bytes:
            self._fault = f"The request's head is over the limit of {self._settings.max_head_bytes} bytes"
            raise _HeadError

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.head_seconds, self._head_is_late)

    def _head_is_late(self) -> None:
        begun = self.headers is not None and (self.cycle is None or self.cycle.response_complete)
        if begun and not self.transport.is_closing():
            self._refuse("408 Request Timeout", "The request's head did not arrive in time")
        else:
            self.transport.close()

    def _expect_reading(self, left: int | None = None) -> None:
        """Whoever takes nothing of an answer for a while is left: it is kept in memory for it."""
        waiting = self.transport.get_write_buffer_size()
        if waiting == left:
            self.transport.abort()
            return
        self._send_timer = self.loop.call_later(self._settings.send_seconds, self._expect_reading, waiting)

    @staticmethod
    def _forget(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class GatheringTransport:
    """A transport that gathers what is written in one turn of the event loop, up to a bound, and writes it at once.

    To write an answer as soon as it is complete was tried: logs by id lost a fifth, as each write wakes a client that
    takes the core away from the answers still to be made.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size >= GATHERED_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data, self._parts, self._size = b"".join(self._parts), [], 0
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

"""The subclass of uvicorn's HTTP protocol class that `serve` passes to uvicorn as `http`.

It differs from uvicorn's class in these ways:

- It parses one request of a connection at a time (receive_buffer.py). Until the response is sent, it pauses reading and
  does not parse the bytes that follow. So pipelined requests use only the memory of their bytes, and these have a limit
  for each worker.
- It does not parse a head that repeats the previous one (parsed_head.py), and it starts most single writes without a
  task (single_writes.py).
- It responds to an unreadable request with a JSON error, after the response to the previous request.
- It limits the size and time of a request's head and the number of connections (connection_timers.py), and the time
  and size of unread responses (slow_readers.py).
- It responds to a client that closes its side of the connection after its request.
- It sends a response with one write (outbox.py).
- It enforces rules of RFC 9112 that uvicorn does not (request_head.py), and trailers are no headers. A request to
  upgrade is served as an ordinary request.
"""

import asyncio
import secrets
from collections.abc import Callable
from functools import cache
from typing import Any

import httptools
import orjson
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from factory_logs.api.asgi.connection_timers import ConnectionTimers
from factory_logs.api.asgi.outbox import GatheringTransport, Outbox
from factory_logs.api.asgi.parsed_head import ParsedHead, parsed_head
from factory_logs.api.asgi.receive_buffer import Flow, PipelinedBytes, ReceiveBuffer
from factory_logs.api.asgi.request_head import (
    HeadError,
    check_version_and_host,
    read_absolute_form,
    reason_of,
    set_target,
)
from factory_logs.api.asgi.request_task import run_application
from factory_logs.api.asgi.slow_readers import SendTimer, UnsentBytes
from factory_logs.api.http.exchange import Exchange
from factory_logs.settings import Settings


class WorkerState:
    """The state that all connections in a worker share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outbox = Outbox()
        self.pipelined = PipelinedBytes(settings.max_pipelined_bytes)
        self.unsent = UnsentBytes(settings.max_unsent_bytes)


@cache
def _worker_state() -> WorkerState:
    """Return the state of the worker.

    The settings come from the environment, because uvicorn passes none to its protocol class.
    """
    return WorkerState(Settings())


class JsonHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with one request at a time, with limits, and with JSON errors for unreadable requests."""

    flow: Flow
    url: bytes
    cycle: Exchange
    _timers: ConnectionTimers
    _send_timer: SendTimer

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._worker = _worker_state()
        self._settings = self._worker.settings
        # Copied, because they are read for each header, and an attribute of the settings is slower.
        self._max_headers = self._settings.max_headers
        self._max_head_bytes = self._settings.max_head_bytes
        self._received = ReceiveBuffer(self._worker.pipelined)
        self._finished = False
        """Whether this connection ignores all further input."""
        self._in_head = False
        """Whether only a part of a request's head has arrived."""
        self._head_bytes = 0
        self._part_bytes = 0
        """The size of the incomplete part of a request in the parser's memory."""
        self._content_length = 0
        self._bypasses_parser = False
        """Whether the parser would read this body as the next request."""
        self._hosts: list[bytes] = []
        self._is_new = False
        """Whether the current request has not been started yet."""
        self._last_head: ParsedHead | None = None
        """The head of the last request, if the next request may repeat it. None as soon as any other byte arrives."""
        self._start_without_task: Callable[[Exchange], bool] | None = getattr(self.app, "start_without_task", None)

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport, self._worker.outbox, self._on_close))  # type: ignore[arg-type]
        self.flow = Flow(self.transport)
        self._timers = ConnectionTimers(
            self.loop, self._settings, self.timeout_keep_alive, self.transport, self._on_late_head
        )
        self._send_timer = SendTimer(self.loop, self._settings.send_seconds, self.transport, self._worker.unsent)
        if len(self.connections) > self._settings.max_connections:
            self._refuse("503 Service Unavailable", "There are too many connections", "retry-after: 1\r\n")
            return
        self._timers.start_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._timers.stop()
        self._send_timer.stop()
        self._stop_reading()
        self.transport.discard()  # type: ignore[attr-defined]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._finished or self.transport.is_closing():  # data may still arrive after an error
            return
        if self._last_head is not None and self.cycle.response_complete and self._repeats(self._last_head, data):
            return
        self._received.append(data)
        self._parse_received()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Close the connection after the response, because the client has closed its side. Without a whole request,
        close it now."""
        cycle = self.cycle
        if cycle is None or cycle.more_body or cycle.response_complete:
            self.transport.close()
        else:
            cycle.keep_alive = False
            self._timers.start_half_closed()
        return True  # uvloop would drop the collected writes

    def pause_writing(self) -> None:
        super().pause_writing()
        self._send_timer.start()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._send_timer.stop()
        super().resume_writing()

    def _on_close(self) -> None:
        """Start no further request, and limit the time that a closing transport waits for the client to read the rest
        of the response."""
        self._stop_reading()
        self._timers.stop_half_closed()
        is_lost = self not in self.connections  # uvicorn has removed a lost connection already
        if not is_lost and self.transport.get_write_buffer_size():
            self._send_timer.start()

    def _on_late_head(self) -> None:
        if self._in_head and not self.transport.is_closing():
            self._refuse("408 Request Timeout", "The request's head did not arrive in time")
        else:
            self.transport.close()

    # Reading

    def _repeats(self, head: ParsedHead, data: bytes) -> bool:
        """Start the request if the bytes are a whole request with this head. Return whether it was started.

        The parser does not see such a request.
        """
        repeated = head.match(data)
        if repeated is None:
            return False
        self._timers.idle_since = None
        self.scope = repeated.scope
        self.scope["state"] = self.app_state.copy()
        cycle = self._start_exchange(keep_alive=True)
        cycle.head_notes = head.notes
        cycle.body += repeated.body
        cycle.more_body = False
        cycle.message_event.set()
        self._start()
        return True

    def _parse_received(self) -> None:
        """Parse the received bytes. After a request without a response yet, stop and pause reading."""
        while self._received:
            cycle = self.cycle
            in_body = cycle is not None and cycle.more_body
            if cycle is not None and not in_body and not cycle.response_complete:
                self._hold()
                return
            self._parse(self._received.next_part(in_body=in_body))
        self._received.clear()
        if self.flow.held and not self._finished:
            self.flow.release()

    def _hold(self) -> None:
        """Keep the unparsed bytes until the response is sent.

        If the worker has too many of them, drop them, and close the connection after the response.
        """
        self._last_head = None
        if self._received.keep():
            self.flow.hold()
        else:
            self.cycle.keep_alive = False
            self._stop_reading()

    def _stop_reading(self) -> None:
        """Ignore the bytes that are not parsed yet, and all that still arrive."""
        self._finished = True
        self._received.clear()
        if not self.transport.is_closing():
            self.flow.hold()

    def _parse(self, part: bytes) -> None:
        self._last_head = None
        if self._bypasses_parser:
            self.on_body(part)
            if not self._received.body_left:
                self.on_message_complete()
            return
        # The parser keeps an incomplete line in memory, however long it is.
        self._part_bytes += len(part)
        continues_head = self._in_head
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:
            # A server may ignore Upgrade (RFC 9110, 7.8). The parser has stopped at the end of the head.
            self._received.put_back(len(part) - upgrade.args[0])
        except httptools.HttpParserError as error:
            self._refuse_request(reason_of(error))
            if self._is_new:  # it reads a disconnect, and is logged
                self._is_new = False
                self._start_task(self.app)
            return
        if self._is_new:
            self._is_new = False
            if not continues_head:
                self._remember_head(part)
            self._start()
        if self._part_bytes > self._max_head_bytes:
            self._refuse_request(f"A part of the request is over the limit of {self._max_head_bytes} bytes")
        elif self._in_head:
            self._timers.start_head()

    def _remember_head(self, request: bytes) -> None:
        """Keep the head of the request that was just parsed, if the next request may repeat it."""
        cycle = self.cycle
        if cycle.more_body or not cycle.keep_alive or self.expect_100_continue:
            return
        self._last_head = parsed_head(request, cycle.body, self.scope)
        if self._last_head is not None:
            cycle.head_notes = self._last_head.notes

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Not in `_parse`, because line ends between two requests do not begin a request.
        self._timers.idle_since = None
        self._head_bytes = self._part_bytes = self._content_length = 0
        self._bypasses_parser = False
        self._hosts = []
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        if not self._in_head:  # a trailer, which must not become a header (RFC 9110, 6.5.1)
            return
        if len(self.headers) >= self._max_headers:
            raise HeadError(f"The request has more than {self._max_headers} headers")
        name = name.lower()
        if name == b"host":
            self._hosts.append(value)
        elif name == b"content-length":
            self._content_length = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def _count_head(self, size: int) -> None:
        self._part_bytes = 0
        self._head_bytes += size
        if self._head_bytes > self._max_head_bytes:
            raise HeadError(f"The request's head is over the limit of {self._max_head_bytes} bytes")

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        check_version_and_host(version, self._hosts)
        if not self.url.startswith(b"/") and self.url != b"*":
            self.url, host = read_absolute_form(self.url)
            # This host replaces the Host header.
            self.headers[:] = [header for header in self.headers if header[0] != b"host"]
            self.headers.append((b"host", host))
        if self.parser.should_upgrade():
            self._bypass_parser()
        set_target(self.scope, self.parser.get_method(), version, self.url)
        if version == "1.0":
            self.expect_100_continue = False  # a client of HTTP/1.0 knows no 100 (RFC 9110, 10.1.1)
        self._start_exchange(keep_alive=version != "1.0" and self.parser.should_keep_alive())
        self._is_new = True
        self._received.body_left = self._content_length
        self._in_head = False
        self._timers.stop_head()
        self._part_bytes = 0

    def _bypass_parser(self) -> None:
        """Read the body without the parser, because it reads no body after a head with Upgrade."""
        if any(name == b"transfer-encoding" for name, _ in self.headers):
            raise HeadError("A request with the header Upgrade must send its body with a Content-Length")
        self._bypasses_parser = self._content_length > 0

    def on_body(self, body: bytes) -> None:
        self._part_bytes = 0
        cycle = self.cycle
        if cycle.response_complete:
            return
        cycle.body += body
        if len(cycle.body) > HIGH_WATER_LIMIT:
            self.flow.pause_reading()
        cycle.message_event.set()

    def on_message_complete(self) -> None:
        if self._bypasses_parser and self._received.body_left:
            return
        self._part_bytes = self._received.body_left = 0
        self._bypasses_parser = False
        cycle = self.cycle
        cycle.more_body = False
        if cycle.response_complete:
            self._timers.stop_leftover()
            self._timers.begin_idling()
        else:
            cycle.message_event.set()

    # Responding

    def _start_exchange(self, *, keep_alive: bool) -> Exchange:
        """Create the exchange of a request.

        uvicorn's `on_headers_complete` does this too, but also upgrades connections, limits concurrency and queues
        pipelined requests.
        """
        self.cycle = Exchange(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=self.access_log,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=keep_alive,
            on_response=self.on_response_complete,
        )
        self.cycle.start_task = self._start_task
        return self.cycle

    def _start(self) -> None:
        """Start the request whose head was parsed last, without a task if the application can."""
        if self.cycle.more_body or self._start_without_task is None or not self._start_without_task(self.cycle):
            self._start_task(self.app)

    def _start_task(self, app: ASGIApp) -> None:
        self.tasks.add(self.loop.create_task(run_application(self.cycle, app, self.tasks)))

    def on_response_complete(self) -> None:
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.cycle.more_body:
            self._timers.start_leftover()
            return
        self._timers.begin_idling()
        if self._received:
            self.loop.call_soon(self._parse_received)

    def _refuse_request(self, message: str) -> None:
        """Respond with a 400 to the current request, unless its response has begun. Close the connection."""
        self.logger.warning("unreadable request: %s", message)
        cycle = self.cycle
        if self._in_head or cycle is None or not cycle.response_started:
            self._refuse("400 Bad Request", message)
        elif cycle.response_complete:
            self.transport.close()
        else:
            cycle.keep_alive = False
            self._stop_reading()

    def _refuse(self, status: str, message: str, header: str = "") -> None:
        """Send an error, and close the connection, because it is unknown where the next request begins."""
        body = orjson.dumps({"message": message, "request_id": secrets.token_hex(8)})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{header}"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
        if self.cycle is not None and not self.cycle.response_complete:
            # The application may still be reading the body, so it must not send a second response.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

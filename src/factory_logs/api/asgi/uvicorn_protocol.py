"""The subclass of uvicorn's HTTP protocol class that `serve` passes to uvicorn as `http`.

It differs from uvicorn's class in these ways:

- It parses one request of a connection at a time. Until the response is sent, it pauses reading and does not parse the
  bytes that follow. So pipelined requests use only the memory of their bytes, and these have a limit for each worker.
- It responds to an unreadable request with a JSON error, after the response to the previous request.
- It limits the size and time of a request's head, the number of connections, and the time and size of unread responses.
- It responds to a client that closes its side of the connection after its request.
- It sends a response with one write. uvicorn writes head and body separately, and writing is the most expensive step of
  a small response (docs/explanation/hot-path.md).
- It enforces rules of RFC 9112 that uvicorn does not: one Host header, HTTP/1.1 or 1.0, absolute-form targets. A
  request to upgrade is served as an ordinary request.
"""

import asyncio
import re
import secrets
from collections.abc import Callable
from functools import cache
from typing import Any
from urllib.parse import unquote

import httptools
import orjson
from starlette.requests import Request
from starlette.types import ASGIApp
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from factory_logs.api.asgi.parsed_head import END_OF_HEAD, ParsedHead, parsed_head
from factory_logs.api.http.error_handlers import INTERNAL_ERROR, error_response
from factory_logs.api.http.exchange import Exchange
from factory_logs.errors import HTTP_STATUS, STOPPING, OverloadedError
from factory_logs.settings import Settings

GATHERED_BYTES = 64 * 1024
_VERSIONS = ("1.1", "1.0")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_INVALID_URL = "The URL is not valid: percent-encode (RFC 3986) each character that is not ASCII, and each space"


class _HeadError(Exception):
    """The head of a request is invalid. The message is for the client."""


class WorkerState:
    """The state that all connections in a worker share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outbox = Outbox()
        self.unparsed_bytes = 0
        self.unsent: dict[JsonHttpProtocol, int] = {}
        """The number of unsent bytes of each slow client. The first entry has been slow the longest."""


@cache
def _worker_state() -> WorkerState:
    """Return the state of the worker.

    The settings come from the environment, because uvicorn passes none to its protocol class.
    """
    return WorkerState(Settings())


class JsonHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with one request at a time, with limits, and with JSON errors for unreadable requests."""

    flow: "Flow"
    url: bytes
    cycle: Exchange

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._worker = _worker_state()
        self._settings = self._worker.settings
        # Copied, because they are read for each header, and an attribute of the settings is slower.
        self._max_headers = self._settings.max_headers
        self._max_head_bytes = self._settings.max_head_bytes
        self._head_timer: asyncio.TimerHandle | None = None
        self._send_timer: asyncio.TimerHandle | None = None
        self._leftover_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None
        self._half_closed_timer: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        """The time of the last response, or None while a request is being received or processed."""
        self._arrived = b""
        self._position = 0
        """The number of bytes of `_arrived` that are parsed."""
        self._counted = 0
        """The number of this connection's bytes that count towards the worker's limit on unparsed bytes."""
        self._tail = b""
        """The last parsed bytes, because the empty line that ends a head may begin in them."""
        self._finished = False
        """Whether this connection ignores all further input."""
        self._in_head = False
        """Whether only a part of a request's head has arrived."""
        self._head_bytes = 0
        self._part_bytes = 0
        """The size of the incomplete part of a request in the parser's memory."""
        self._content_length = 0
        self._body_left = 0
        """The number of missing bytes of a body with a known length."""
        self._bypasses_parser = False
        """Whether the parser would read this body as the next request."""
        self._hosts: list[bytes] = []
        self._is_new = False
        """Whether the current request has not been started yet."""
        self._last_head: ParsedHead | None = None
        """The head of the last parsed request, if the next request may repeat it."""
        self._start_without_task: Callable[[Exchange], bool] | None = getattr(self.app, "start_without_task", None)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport, self._worker.outbox, self._on_close))  # type: ignore[arg-type]
        self.flow = Flow(self.transport)
        if len(self.connections) > self._settings.max_connections:
            self._refuse("503 Service Unavailable", "There are too many connections", "retry-after: 1\r\n")
            return
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel(self._head_timer)
        self._cancel(self._send_timer)
        self._cancel(self._leftover_timer)
        self._cancel(self._idle_timer)
        self._cancel(self._half_closed_timer)
        self._stop_reading()
        self._worker.unsent.pop(self, None)
        self.transport.discard()  # type: ignore[attr-defined]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._finished or self.transport.is_closing():  # data may still arrive after an error
            return
        self._arrived += data
        self._parse_arrived()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Close the connection after the response, because the client has closed its side. Without a whole request,
        close it now.

        A client that has disconnected looks the same. So the response must come within `half_closed_seconds`.
        """
        cycle = self.cycle
        if cycle is None or cycle.more_body or cycle.response_complete:
            self.transport.close()
        elif self._half_closed_timer is None:
            cycle.keep_alive = False
            self._half_closed_timer = self.loop.call_later(self._settings.half_closed_seconds, self.transport.abort)
        return True  # uvloop would drop the collected writes

    def _parse_arrived(self) -> None:
        """Parse the received bytes. After a request without a response yet, stop and pause reading."""
        while self._position < len(self._arrived) and not self._finished:
            cycle = self.cycle
            if cycle is not None and not cycle.more_body and not cycle.response_complete:
                self._hold()
                return
            if not self._repeats_last_head():
                self._parse(self._next_part())
        self._arrived, self._position = b"", 0
        if self._counted:
            self._release()

    def _hold(self) -> None:
        """Keep the unparsed bytes until the response is sent.

        If the worker has too many of them, drop them, and close the connection after the response.
        """
        if self._counted:
            return
        size = len(self._arrived)
        if self._worker.unparsed_bytes + size > self._settings.max_pipelined_bytes:
            self.cycle.keep_alive = False
            self._stop_reading()
            return
        self._counted = size
        self._worker.unparsed_bytes += size
        self.flow.hold()

    def _release(self) -> None:
        self._worker.unparsed_bytes -= self._counted
        self._counted = 0
        self.flow.release()

    def _stop_reading(self) -> None:
        self._finished = True
        self._worker.unparsed_bytes -= self._counted
        self._counted = 0
        self._arrived, self._position = b"", 0
        if not self.transport.is_closing():
            self.flow.hold()

    def _repeats_last_head(self) -> bool:
        """Start the request if it has arrived whole and repeats the last head. Return whether it was started.

        The parser does not see such a request.
        """
        if self._last_head is None or self._position or self._tail or self.cycle.more_body:
            return False
        repeated = self._last_head.match(self._arrived)
        if repeated is None:
            return False
        self._idle_since = None
        self._position = len(self._arrived)
        self.scope = repeated.scope
        self.scope["state"] = self.app_state.copy()
        self._start_exchange(keep_alive=True)
        self.cycle.head_notes = self._last_head.notes
        self.on_body(repeated.body)
        self.on_message_complete()
        self._start()
        return True

    def _next_part(self) -> bytes:
        """Return the next bytes for the parser. They end where the request ends, if its end has arrived.

        A part is one of these: a whole request of known length if nothing follows it, a body of known length, the bytes
        up to the next empty line, or else all bytes.
        """
        start, size = self._position, len(self._arrived)
        if self._body_left:
            self._position = min(start + self._body_left, size)
            self._body_left -= self._position - start
            return self._arrived[start : self._position]
        end = self._end_of_head(start)
        self._position = size if end is None or self._ends_in_body(start, end, size) else end
        part = self._arrived[start : self._position]
        self._tail = (self._tail + part[-3:])[-3:] if end is None else b""
        return part

    def _ends_in_body(self, start: int, end: int, size: int) -> bool:
        """Return whether the received bytes are exactly one request.

        Only the usual spellings of Content-Length are recognised. A wrong False is harmless: the head and the body
        become two parts, so the parser is called twice.
        """
        if end == size or start or (self.cycle is not None and self.cycle.more_body):
            return False
        length = size - end
        head = self._arrived
        return (
            head.find(b"\r\nContent-Length: %d\r\n" % length, 0, end) != -1
            or head.find(b"\r\ncontent-length: %d\r\n" % length, 0, end) != -1
        )

    def _end_of_head(self, start: int) -> int | None:
        """Return the index after the next empty line in the received bytes. The line may begin in `_tail`."""
        across = (self._tail + self._arrived[start : start + 3]).find(END_OF_HEAD) if self._tail else -1
        if across != -1:
            return start - len(self._tail) + across + len(END_OF_HEAD)
        within = self._arrived.find(END_OF_HEAD, start)
        return None if within == -1 else within + len(END_OF_HEAD)

    def _parse(self, part: bytes) -> None:
        if self._leftover_timer is not None:
            self._idle_since = None
        if self._bypasses_parser:
            self.on_body(part)
            if not self._body_left:
                self.on_message_complete()
            return
        # The parser keeps an incomplete line in memory, however long it is.
        self._part_bytes += len(part)
        continues_head = self._in_head
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade as upgrade:
            # A server may ignore Upgrade (RFC 9110, 7.8). The parser has stopped at the end of the head.
            self._position -= len(part) - upgrade.args[0]
        except httptools.HttpParserError as error:
            self._refuse_request(_reason(error))
            if self._is_new:  # it reads a disconnect, and is logged
                self._is_new = False
                self._start_task(self.app)
            return
        if self._is_new:
            self._last_head = None if continues_head else self._repeatable_head(part)
            if self._last_head is not None:
                self.cycle.head_notes = self._last_head.notes
            self._start()
        if self._part_bytes > self._max_head_bytes:
            self._refuse_request(f"A part of the request is over the limit of {self._max_head_bytes} bytes")
        elif self._in_head and self._head_timer is None:
            self._start_head_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # Not in `_parse`, because line ends between two requests do not begin a request.
        self._idle_since = None
        self._head_bytes = self._part_bytes = self._content_length = 0
        self._bypasses_parser = False
        self._hosts = []
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        self._part_bytes = 0
        self._head_bytes += len(url)
        if self._head_bytes > self._max_head_bytes:
            raise self._too_large_head()
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._part_bytes = 0
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self._max_head_bytes:
            raise self._too_large_head()
        if not self._in_head:  # a trailer, which must not become a header (RFC 9110, 6.5.1)
            return
        if len(self.headers) >= self._max_headers:
            raise _HeadError(f"The request has more than {self._max_headers} headers")
        name = name.lower()
        if name == b"host":
            self._hosts.append(value)
        elif name == b"content-length":
            self._content_length = int(value)
        elif name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        version = self.parser.get_http_version()
        if version not in _VERSIONS:
            raise _HeadError(f"HTTP/{version} is not supported; use HTTP/1.1 or HTTP/1.0")
        self._check_host(version)
        if not self.url.startswith(b"/"):
            self._read_absolute_form()
        if self.parser.should_upgrade() and not self._has_bypassed_body():
            raise _HeadError("A request with the header Upgrade must send its body with a Content-Length")
        self._set_target(version)
        self._start_exchange(keep_alive=version != "1.0" and self.parser.should_keep_alive())
        self._body_left = self._content_length
        self._in_head = False
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
        self._part_bytes = 0

    def _repeatable_head(self, request: bytes) -> ParsedHead | None:
        """Return the head of the request that was just parsed if the next request may repeat it, else None."""
        cycle = self.cycle
        if cycle.more_body or not cycle.keep_alive or self.expect_100_continue:
            return None
        return parsed_head(request, cycle.body, self.scope)

    def _set_target(self, version: str) -> None:
        scope: Any = self.scope
        url = httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["http_version"] = version
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = url.path
        scope["query_string"] = url.query or b""

    def _start_exchange(self, *, keep_alive: bool) -> None:
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
        self._is_new = True

    def _start(self) -> None:
        """Start the request whose head was parsed last, without a task if the application can."""
        self._is_new = False
        if self.cycle.more_body or self._start_without_task is None or not self._start_without_task(self.cycle):
            self._start_task(self.app)

    def _start_task(self, app: ASGIApp) -> None:
        task = self.loop.create_task(self._run(self.cycle, app))
        self.tasks.add(task)

    async def _run(self, exchange: Exchange, app: ASGIApp) -> None:
        """Run an application for a request.

        A callback of the task, with which uvicorn removes it from the running tasks, would take another turn of the
        event loop.
        """
        try:
            await _run_application(exchange, app)
        finally:
            self.tasks.discard(asyncio.current_task())

    def _check_host(self, version: str) -> None:
        """Require a valid Host header (RFC 9112, 3.2)."""
        if len(self._hosts) > 1:
            raise _HeadError("The request has more than one Host header")
        if not self._hosts:
            if version == "1.1":
                raise _HeadError("The request has no Host header; HTTP/1.1 needs one")
        elif not _HOST.fullmatch(self._hosts[0]):
            raise _HeadError("The Host header is not a host with an optional port")

    def _read_absolute_form(self) -> None:
        """Take host and path from `GET http://host/path`; this host replaces the Host header (RFC 9112, 3.2.2)."""
        if self.url == b"*":
            return
        url = httptools.parse_url(self.url)
        if url.schema.lower() not in (b"http", b"https") or url.userinfo:
            raise _HeadError("The target of the request must be a path, or an http or https URL without user")
        host = b"[%s]" % url.host if b":" in url.host else url.host
        authority = b"%s:%d" % (host, url.port) if url.port else host
        self.headers[:] = [header for header in self.headers if header[0] != b"host"]
        self.headers.append((b"host", authority))
        self.url = (url.path or b"/") + (b"?" + url.query if url.query else b"")

    def _has_bypassed_body(self) -> bool:
        """Return whether the body can be read without the parser. A chunked body cannot.

        The parser reads no body after a head with Upgrade.
        """
        self._bypasses_parser = self._content_length > 0
        return all(name != b"transfer-encoding" for name, _ in self.headers)

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
        if self._bypasses_parser and self._body_left:
            return
        self._part_bytes = self._body_left = 0
        self._bypasses_parser = False
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.more_body = False
            cycle.message_event.set()
        if self._leftover_timer is not None:
            self._leftover_timer.cancel()
            self._leftover_timer = None
            self._begin_idling()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        self._begin_idling()
        if self.cycle.more_body:
            # A response such as a 401 was sent before the whole body arrived. Limit the time for the rest.
            self._leftover_timer = self.loop.call_later(self._settings.leftover_body_seconds, self.transport.close)
        elif self._arrived:
            self.loop.call_soon(self._parse_arrived)

    def _begin_idling(self) -> None:
        """Close the connection after `keep_alive_seconds` without a next request.

        A connection has one timer, which is restarted if it fires too early. A timer for each request would cost more.
        """
        self._idle_since = self.loop.time()
        if self._idle_timer is None:
            self._idle_timer = self.loop.call_later(self.timeout_keep_alive, self._on_idle_timer)

    def _on_idle_timer(self) -> None:
        self._idle_timer = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left > 0:
            self._idle_timer = self.loop.call_later(left, self._on_idle_timer)
        else:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_send_timer()

    def resume_writing(self) -> None:
        if not self.transport.is_closing():
            self._cancel(self._send_timer)
            self._worker.unsent.pop(self, None)
        super().resume_writing()

    def _on_close(self) -> None:
        """Limit the time that a closing transport waits for the client to read the rest of the response."""
        self._cancel(self._half_closed_timer)
        is_lost = self not in self.connections  # uvicorn has removed a lost connection already
        if not is_lost and self.transport.get_write_buffer_size():
            self._start_send_timer()

    def _refuse_request(self, message: str) -> None:
        """Respond with a 400 to the current request, unless its response has begun. Close the connection."""
        self.logger.warning("unreadable request: %s", message)
        if self._in_head or self.cycle is None or not self.cycle.response_started:
            self._refuse("400 Bad Request", message)
        elif self.cycle.response_complete:
            self.transport.close()
        else:
            self.cycle.keep_alive = False
            self._stop_reading()

    def _refuse(self, status: str, message: str, header: str = "") -> None:
        """Send an error, and close the connection, because it is unknown where the next request begins."""
        body = orjson.dumps({"message": message, "request_id": secrets.token_hex(8)})
        head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{header}"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()
        self._stop_reading()
        if self.cycle is not None and not self.cycle.response_complete:
            # The application may still be reading the body, so it must not send a second response.
            self.cycle.disconnected = True
            self.cycle.message_event.set()

    def _too_large_head(self) -> _HeadError:
        return _HeadError(f"The request's head is over the limit of {self._max_head_bytes} bytes")

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._settings.head_seconds, self._on_head_timeout)

    def _on_head_timeout(self) -> None:
        if self._in_head and not self.transport.is_closing():
            self._refuse("408 Request Timeout", "The request's head did not arrive in time")
        else:
            self.transport.close()

    def _start_send_timer(self, left: int | None = None) -> None:
        """Abort the connection if the client reads nothing for `send_seconds`. Its response is held in memory."""
        waiting = self.transport.get_write_buffer_size()
        if waiting == left:
            self.transport.abort()
            return
        self._cancel(self._send_timer)
        self._send_timer = self.loop.call_later(self._settings.send_seconds, self._start_send_timer, waiting)
        self._count_unsent(waiting)

    def _count_unsent(self, size: int) -> None:
        """Count the unsent bytes. If the worker has too many, abort the connection that has been slow the longest."""
        unsent = self._worker.unsent
        unsent[self] = size
        while len(unsent) > 1 and sum(unsent.values()) > self._settings.max_unsent_bytes:
            slowest = next(iter(unsent))
            del unsent[slowest]
            slowest.transport.abort()

    @staticmethod
    def _cancel(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


async def _run_application(exchange: Exchange, app: ASGIApp) -> None:
    """Run an application for a request. If it sends no response, send an error; if its response is not complete, close
    the connection.

    uvicorn's own method sends a text with status 500, also to a request that it cancels at the end of the drain time.
    That request gets a 503, so that its client sends it again. An error closes the connection, because a part of the
    request's body may not have arrived.
    """
    stopping: OverloadedError | None = None
    try:
        await app(exchange.scope, exchange.receive, exchange.send)  # type: ignore[arg-type]
    except asyncio.CancelledError:
        stopping = OverloadedError(STOPPING)
    except Exception as error:
        exchange.logger.error("Exception in ASGI application", exc_info=error)
    if not exchange.response_started and not exchange.disconnected:
        await _send_error(exchange, stopping)
    elif not exchange.response_complete and not exchange.disconnected:
        exchange.transport.close()
    exchange.on_response = lambda: None


async def _send_error(exchange: Exchange, stopping: OverloadedError | None) -> None:
    request = Request(exchange.scope)  # type: ignore[arg-type]
    headers = {"Connection": "close", "X-Request-ID": exchange.scope.get("state", {}).get("request_id", "")}
    if stopping is None:
        response = error_response(request, 500, INTERNAL_ERROR, headers=headers)
    else:
        headers["Retry-After"] = str(stopping.retry_after)
        response = error_response(request, HTTP_STATUS[OverloadedError], stopping.message, headers=headers)
    await response(exchange.scope, exchange.receive, exchange.send)  # type: ignore[arg-type]


def _reason(error: httptools.HttpParserError) -> str:
    if isinstance(error, httptools.HttpParserInvalidURLError) or isinstance(
        error.__context__, httptools.HttpParserInvalidURLError
    ):
        return _INVALID_URL
    if isinstance(error.__context__, _HeadError):
        return str(error.__context__)
    return f"The request is not valid HTTP/1.1: {error}"


class Flow(FlowControl):
    """uvicorn's flow control, extended by a hold: reading does not resume until the hold is released."""

    held = False

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def release(self) -> None:
        self.held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


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

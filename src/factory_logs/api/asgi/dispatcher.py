"""Give each request an id, find its route, log it and count it.

This layer runs before FastAPI and is not a middleware, because FastAPI and Starlette take more time for a request than
a fast route does (docs/explanation/hot-path.md). Requests that FastAPI rejects also get an id and a log line here. HEAD
requests are handled as GET requests.
"""

import asyncio
import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from factory_logs import metrics
from factory_logs.api.asgi.access_log import AccessLog
from factory_logs.api.asgi.fast_routes import FastRoute, FastRoutes
from factory_logs.api.asgi.single_writes import LARGEST_BODY, Head, ReadBody, SingleWrite
from factory_logs.api.dependencies import STORES_LOGS
from factory_logs.api.http.error_handlers import unexpected_error
from factory_logs.api.http.exchange import Exchange
from factory_logs.api.http.responses import route_path
from factory_logs.api.services import Services
from factory_logs.errors import BadRequestError, FactoryLogsError
from factory_logs.ingest.single_records import FirstResponse, Stored

_log = structlog.get_logger(__name__)
_VALID_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
# W3C Trace Context: version, trace, parent, flags. A later version than 00 may append more.
_TRACEPARENT = re.compile(
    rb"(?:00|((?!ff|00)[0-9a-f]{2}))-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?(1)(?:-.*)?)"
)
_METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
_ADDED_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"))
_CONTENT_SECURITY_POLICY = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""Prevents scripts if a browser shows a JSON response as a page. `/docs` sets its own policy."""


class _Ids(NamedTuple):
    """The ids in the head of a request."""

    request_id: str | None
    trace_id: str | None


class _SingleWriteRoute(NamedTuple):
    """What the head of a single write says."""

    route: FastRoute
    read_body: ReadBody
    authorization: str
    ids: _Ids


class Dispatcher:
    """Gives each request an id, returns the id in the response, and logs and counts the request.

    A valid `X-Request-ID` of the client becomes the id. The log lines contain the trace id of a valid W3C
    `traceparent`.
    """

    def __init__(
        self,
        app: ASGIApp,
        routes: FastRoutes,
        services: Callable[[], Services],
        access_log: AccessLog | None,
    ) -> None:
        self._app = app
        self._routes = routes
        self._services = services
        self._access_log = access_log
        # Ids must be unique, not secret: a counter with a random start.
        self._numbers = itertools.count(secrets.randbits(31))
        self._prefix = secrets.token_hex(4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        state = self._identify(scope, _ids(scope))
        status = 500
        try:
            route, segment = self._routes.find(scope["method"], route_path(scope))
            if route is None:
                sender = _HeaderAdder(send, _added_headers(state))
                try:
                    await self._app(scope, receive, sender)
                finally:
                    status = sender.status
            else:
                scope["route"] = route
                response = await route.respond(scope, receive, self._services(), segment)
                status = response.status_code
                _add_headers(response, state)
                await response(scope, receive, send)
        except ClientDisconnect:
            status = 499
        except asyncio.CancelledError:
            if status == 500:  # no response has begun; request_task.py sends a 503
                status = 503
            raise
        finally:
            self._account(started, scope, status)

    def start_without_task(self, exchange: Exchange) -> bool:
        """Start a single write (single_writes.py). Return False, and do nothing, if the request needs a task."""
        started = time.perf_counter()
        scope: Scope = exchange.scope  # type: ignore[assignment]
        route = self._single_write_route(exchange)
        services = self._services()
        if route is None or len(exchange.body) > min(LARGEST_BODY, services.settings.max_body_bytes):
            return False
        user = services.authenticator.cached(route.authorization)
        if user is None:
            return False
        try:
            STORES_LOGS.check(user)
            write = route.read_body(exchange.body, user, services)
        except Exception:  # noqa: BLE001 - the endpoint raises it again
            return False
        if write is None:
            return False
        state = self._identify(scope, route.ids)
        state["user"] = user.username
        scope["route"] = route.route
        if write.key is None:
            exchange.body = bytearray()  # not needed until the response
        waiting = _WaitingWrite(write, exchange, self, partial(self._account, started))
        try:
            services.group_commit.add(write.log, user.username, waiting, write.key)
        except FactoryLogsError as error:
            waiting.set_exception(error)
        return True

    def _single_write_route(self, exchange: Exchange) -> _SingleWriteRoute | None:
        """Return what the head of a request says about its single write, or None if it needs a task.

        The result is the same for all requests that repeat the head.
        """
        scope: Scope = exchange.scope  # type: ignore[assignment]
        notes = exchange.head_notes
        if notes is None:
            return None if exchange.waiting_for_100_continue else self._read_head(scope)
        if _SingleWriteRoute not in notes:
            notes[_SingleWriteRoute] = self._read_head(scope)
        route: _SingleWriteRoute | None = notes[_SingleWriteRoute]
        return route

    def _read_head(self, scope: Scope) -> _SingleWriteRoute | None:
        found = self._routes.find_single_write(scope["method"], route_path(scope))
        if found is None:
            return None
        headers = dict(scope["headers"])
        if len(headers) < len(scope["headers"]) or b"content-encoding" in headers:
            return None
        route, read_head = found
        try:
            read_body = read_head(Head(scope, headers))
        except Exception:  # noqa: BLE001 - the endpoint raises it again
            return None
        if read_body is None:
            return None
        return _SingleWriteRoute(route, read_body, headers.get(b"authorization", b"").decode("latin-1"), _ids(scope))

    def _identify(self, scope: Scope, ids: _Ids) -> dict[str, Any]:
        """Return the request's state with its ids."""
        state: dict[str, Any] = scope.setdefault("state", {})
        state["request_id"] = ids.request_id or f"{self._prefix}{next(self._numbers):08x}"
        if ids.trace_id is not None:
            state["trace_id"] = ids.trace_id
        return state

    def _account(self, started: float, scope: Scope, status: int) -> None:
        seconds = time.perf_counter() - started
        state = scope["state"]
        route = getattr(scope.get("route"), "path", None)
        method = scope["method"]
        metrics.count_response(method if method in _METHODS else "other", route or "unmatched", status, seconds)
        if self._access_log is not None:
            self._access_log.write(
                request_id=state["request_id"],
                method=method,
                route=route or scope["path"],
                status=status,
                seconds=seconds,
                user=state.get("user"),
                trace_id=state.get("trace_id"),
            )


def _ids(scope: Scope) -> _Ids:
    """Return the id that the client gave the request, and the trace id of its `traceparent`, if they are valid."""
    request_id = trace_id = None
    for name, value in scope["headers"]:
        if name == b"x-request-id" and request_id is None and _VALID_ID.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent" and (match := _TRACEPARENT.fullmatch(value)):
            trace_id = match[2].decode()
    return _Ids(request_id, trace_id)


def _added_headers(state: dict[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    return (b"x-request-id", state["request_id"].encode()), *_ADDED_HEADERS


def _add_headers(response: Response, state: dict[str, Any]) -> None:
    response.raw_headers.extend((*_added_headers(state), _CONTENT_SECURITY_POLICY))


class _WaitingWrite:
    """A single write that waits for its commit. It gets the outcome as a future does, and responds to the request.

    If the request has a key, and its log was not stored because the key was used before or because its repair does not
    exist, the endpoint serves the request: it finds the first response. The key is the same, so no log is stored twice.

    Its methods raise nothing, because group commit calls them for all logs of a commit in turn.
    """

    __slots__ = ("_account", "_endpoint", "_exchange", "_write")

    def __init__(
        self, write: SingleWrite, exchange: Exchange, endpoint: ASGIApp, account: Callable[[Scope, int], None]
    ) -> None:
        self._write = write
        self._exchange = exchange
        self._endpoint = endpoint
        self._account = account

    def done(self) -> bool:
        """Return False: the outcome comes only once, and it is needed even if the client has disconnected."""
        return False

    def set_result(self, stored: Stored | FirstResponse) -> None:
        exchange = self._exchange
        if isinstance(stored, FirstResponse):
            exchange.start_task(self._endpoint)
            return
        try:
            response = self._write.respond(stored)
            _add_headers(response, exchange.scope["state"])
            is_sent = exchange.respond(response.status_code, response.raw_headers, response.body)
        except Exception as error:  # noqa: BLE001 - a 500 is a bug, and still a response
            self.set_exception(error)
            return
        if not is_sent:
            exchange.start_task(partial(self._send, response))
            return
        try:
            self._account(exchange.scope, response.status_code)  # type: ignore[arg-type]
        except Exception:  # noqa: BLE001 - the response is already sent
            _log.exception("a request could not be logged")

    def set_exception(self, error: BaseException) -> None:
        if self._write.key is not None and isinstance(error, BadRequestError):
            self._exchange.start_task(self._endpoint)
            return
        self._exchange.start_task(partial(self._send_error, error))

    async def _send_error(self, error: BaseException, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if isinstance(error, FactoryLogsError):
            response = self._write.refuse(request, error)
        else:
            response = unexpected_error(request, error)
        _add_headers(response, scope["state"])
        await self._send(response, scope, receive, send)

    async def _send(self, response: Response, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await response(scope, receive, send)
        finally:
            self._account(scope, response.status_code)


class _HeaderAdder:
    """An ASGI `send` that adds headers to FastAPI's response and remembers its status."""

    def __init__(self, send: Send, added: Iterable[tuple[bytes, bytes]]) -> None:
        self._send = send
        self._added = added
        self.status = 500

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ()), *self._added]
            if not any(name == _CONTENT_SECURITY_POLICY[0] for name, _ in headers):
                headers.append(_CONTENT_SECURITY_POLICY)
            message["headers"] = headers
        await self._send(message)


class HeadAsGet:
    """Responds to HEAD like to GET, but without the body.

    The application gets a copy of the scope, because the server must still see HEAD in the original. After the head is
    sent, the application sees a disconnect, so it does not produce a long body that would be dropped.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        return (self._respond if scope["method"] == "HEAD" else self._app)(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        responded = False

        async def receive_until_responded() -> Message:
            return {"type": "http.disconnect"} if responded else await receive()

        async def send_head(message: Message) -> None:
            nonlocal responded
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body", "body": b""})
                responded = True

        await self._app({**scope, "method": "GET"}, receive_until_responded, send_head)

"""Where every request comes in: its id, its way, its log line, its metrics.

It stands in front of FastAPI, not among its middleware: what FastAPI and Starlette do around a request costs more than
a direct route does (docs/hot-path.md), and here an error that they themselves answer has its id and its line as well.
"""

import itertools
import re
import secrets
import time
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from factory_logs import metrics
from factory_logs.api.access_log import AccessLog
from factory_logs.api.direct import DirectRoutes
from factory_logs.api.services import Services

_SANE_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))
_ADDED_HEADERS = ((b"x-content-type-options", b"nosniff"), (b"x-frame-options", b"DENY"))
_NOTHING_TO_RUN = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
"""JSON that a browser is made to show as a page can do nothing there. `/docs` says by itself what it needs."""


class Entrance:
    """Gives each request an id (the caller's `X-Request-ID` where it is sane), answers with it, logs and counts it."""

    def __init__(
        self,
        app: ASGIApp,
        routes: DirectRoutes,
        services: Callable[[], Services],
        access_log: AccessLog | None,
    ) -> None:
        self._app = app
        self._routes = routes
        self._services = services
        self._access_log = access_log
        # Unique, not secret: a random start and a count.
        self._numbers = itertools.count(secrets.randbits(31))
        self._prefix = secrets.token_hex(4)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        request_id = self._request_id(scope)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        added = ((b"x-request-id", request_id.encode()), *_ADDED_HEADERS)
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *added]
                if not any(name == _NOTHING_TO_RUN[0] for name, _ in headers):
                    headers.append(_NOTHING_TO_RUN)
                message["headers"] = headers
            await send(message)

        try:
            route, segment = self._routes.find(scope["method"], scope["path"])
            if route is None:
                await self._app(scope, receive, send_with_id)
            else:
                scope["route"] = route
                response = await route.answer(scope, receive, self._services(), segment)
                status = response.status_code
                response.raw_headers.extend((*added, _NOTHING_TO_RUN))
                await response(scope, receive, send)
        except ClientDisconnect:
            status = 499
        finally:
            self._account(scope, state, status, time.perf_counter() - started)

    def _account(self, scope: Scope, state: dict[str, object], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None)
        method = scope["method"]
        metrics.answered(method if method in _METHODS else "other", route or "unmatched", status, seconds)
        if self._access_log is not None:
            # Never a body, a query string or a header, as they may hold secrets.
            self._access_log.write(
                request_id=state["request_id"],
                method=method,
                route=route or scope["path"],
                status=status,
                ms=round(seconds * 1000, 2),
                user=state.get("user"),
            )

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and _SANE_ID.fullmatch(value):
                return str(value.decode())
        return f"{self._prefix}{next(self._numbers):08x}"

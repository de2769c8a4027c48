"""Run the application for a request, and respond in its place if it does not."""

import asyncio

from starlette.requests import Request
from starlette.types import ASGIApp

from factory_logs.api.http.error_handlers import INTERNAL_ERROR, error_response
from factory_logs.api.http.exchange import Exchange
from factory_logs.errors import HTTP_STATUS, STOPPING, OverloadedError


async def run_application(exchange: Exchange, app: ASGIApp, running: "set[asyncio.Task[None]]") -> None:
    """Run an application for a request. If it sends no response, send an error; if its response is not complete, close
    the connection.

    uvicorn's own method sends a text with status 500, also to a request that it cancels at the end of the drain time.
    That request gets a 503, so that its client sends it again. An error closes the connection, because a part of the
    request's body may not have arrived.

    At the end, the task removes itself from the running tasks. A callback of the task, which uvicorn uses for this,
    would take another turn of the event loop.
    """
    stopping: OverloadedError | None = None
    try:
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
    finally:
        running.discard(asyncio.current_task())


async def _send_error(exchange: Exchange, stopping: OverloadedError | None) -> None:
    request = Request(exchange.scope)  # type: ignore[arg-type]
    headers = {"Connection": "close", "X-Request-ID": exchange.scope.get("state", {}).get("request_id", "")}
    if stopping is None:
        response = error_response(request, 500, INTERNAL_ERROR, headers=headers)
    else:
        headers["Retry-After"] = str(stopping.retry_after)
        response = error_response(request, HTTP_STATUS[OverloadedError], stopping.message, headers=headers)
    await response(exchange.scope, exchange.receive, exchange.send)  # type: ignore[arg-type]

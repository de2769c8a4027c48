"""A worker on a port that records which requests it starts without a task."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from factory_logs.api.asgi.uvicorn_protocol import JsonHttpProtocol
from factory_logs.api.http.exchange import Exchange
from factory_logs.api.services import Services

POINT = b'm,product_imei=352099001761481,a=b passed=true,note="ok" 1706708700000000000'
TWICE = [("X-Twice", "1"), ("X-Twice", "2")]
"""Headers with which only the endpoint serves a request."""


class Worker:
    """A worker behind the service's own protocol, on a port. `without_task` records for each POST whether it was
    started without a task."""

    def __init__(self, app: FastAPI, port: int, token: str) -> None:
        self.app = app
        self.port = port
        self.client = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Token token={token}"}, timeout=60
        )
        self.without_task: list[bool] = []

    @property
    def services(self) -> Services:
        services: Services = self.app.state.services
        return services

    def note(self, start: Callable[[Exchange], bool]) -> Callable[[Exchange], bool]:
        def noted(exchange: Exchange) -> bool:
            started = start(exchange)
            if exchange.scope["method"] == "POST":
                self.without_task.append(started)
            return started

        return noted

    async def both(self, url: str, body: bytes, **headers: str) -> tuple[httpx.Response, httpx.Response]:
        """Send a request that needs no task, and then the same request to the endpoint. Return their responses."""
        first = await self.client.post(url, content=body, headers=headers)
        second = await self.client.post(url, content=body, headers=[*headers.items(), *TWICE])
        assert self.without_task[-2:] == [True, False]
        return first, second


@asynccontextmanager
async def served(app: Any, token: str, patch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    loop, state = asyncio.get_running_loop(), ServerState()
    config = uvicorn.Config(app, http=JsonHttpProtocol, log_config=None, access_log=False, proxy_headers=False)
    config.load()
    server = await loop.create_server(
        lambda: JsonHttpProtocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    served = Worker(app, server.sockets[0].getsockname()[1], token)
    patch.setattr(app, "start_without_task", served.note(app.start_without_task))
    try:
        async with served.client:
            assert (await served.client.get("/v1/factory_logs")).status_code == 200  # now the token is cached
            served.without_task.clear()
            yield served
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()  # type: ignore[union-attr]
        while state.connections:
            await asyncio.sleep(0.01)

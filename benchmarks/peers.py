"""The peers that the service is compared with: the usual ways to build it, or the least work possible."""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Response
from pydantic import BaseModel, BeforeValidator
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from factory_logs.api.http.exchange import Exchange
from factory_logs.api.http.responses import JsonResponse
from factory_logs.db.models import FactoryLog
from factory_logs.schemas.timestamps import parse_timestamp


class Log(BaseModel):
    app_name: str
    product_imei: str | None = None
    repair_id: int | None = None
    timestamp: Annotated[datetime, BeforeValidator(parse_timestamp)]
    tags: Any = None
    fields: Any = None


class StoredLog(Log):
    factory_log_id: int


def echo() -> FastAPI:
    """A bare FastAPI echo of the model, without a database."""
    app = FastAPI()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {}

    @app.post("/", status_code=201)
    async def create(log: Log) -> Log:
        return log

    @app.post("/batch", status_code=201)
    async def create_many(logs: list[Log]) -> dict[str, int]:
        return {"num_created": len(logs)}

    return app


class _Silent:
    """An app that responds with 201 to a request that has arrived whole, without a task."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await _response(scope)(scope, receive, send)

    def start_without_task(self, exchange: Exchange) -> bool:
        asyncio.get_running_loop().call_soon(self._respond, exchange)
        return True

    def _respond(self, exchange: Exchange) -> None:
        response = _response(exchange.scope)
        assert exchange.respond(response.status_code, response.raw_headers, response.body)


def silent() -> ASGIApp:
    """Return an app that responds by the shortest way that the service has: the cost of HTTP alone."""
    return _Silent()


def silent_messages() -> ASGIApp:
    """Return the same app by ASGI's messages, with a timer for the body."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_message(message: Message) -> None:
            await send(message)

        if scope["type"] == "http":
            timer = asyncio.get_running_loop().call_later(60, int)
            await receive()
            timer.cancel()
            await _response(scope)(scope, receive, send_message)

    return app


def _response(scope: Mapping[str, Any]) -> JsonResponse:
    """Return a response with as many headers as that of a stored log."""
    headers = {f"X-Header-{number}": "x" * 20 for number in range(5)}
    return JsonResponse(b"x" * 400, 200 if scope["method"] == "GET" else 201, headers)


def session_per_request() -> FastAPI:
    """Return an app with one SQLAlchemy session and one commit per request, as in tutorials."""
    app = FastAPI()
    engine = create_async_engine(os.environ["PEER_DATABASE_URL"], pool_size=16, max_overflow=0)
    sessions = async_sessionmaker(engine, expire_on_commit=False)

    async def session() -> AsyncIterator[AsyncSession]:
        async with sessions() as opened:
            yield opened

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {}

    @app.post("/", status_code=201)
    async def create(log: Log, session: Annotated[AsyncSession, Depends(session)]) -> StoredLog:
        row = FactoryLog(**dict(log))
        session.add(row)
        await session.commit()
        return StoredLog.model_construct(factory_log_id=row.factory_log_id, **dict(log))

    return app


def memory() -> FastAPI:
    """Return a bare FastAPI route that responds to every request with the bytes of a file, from memory."""
    app = FastAPI()
    body = Path(os.environ["PEER_BODY"]).read_bytes()

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {}

    @app.get("/{name}")
    async def read(name: str) -> Response:
        return Response(body, media_type="application/json")

    return app

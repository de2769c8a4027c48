"""Puts the service together: routers, lifespan, error answers. Nothing else."""

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from factory_logs import __version__, logs, metrics
from factory_logs.api import auth, docs, errors, influx, log_reads, log_stats, log_writes, openapi, ops, repairs, tail
from factory_logs.api.access_log import AccessLog
from factory_logs.api.direct import DirectRoutes
from factory_logs.api.entrance import Entrance
from factory_logs.api.middleware import BodyLimit, HeadAsGet
from factory_logs.api.services import Services
from factory_logs.api.shutdown import ending_with_supervisor, stopping
from factory_logs.db.engine import Database
from factory_logs.ingest.batch import BatchWriter
from factory_logs.ingest.batch_connections import BatchConnections
from factory_logs.ingest.body_budget import BodyBudget
from factory_logs.ingest.group_commit import GroupCommit
from factory_logs.ingest.idempotency import forget_old_keys
from factory_logs.ingest.records import Limits
from factory_logs.reading.by_id import LogsById
from factory_logs.reading.counts import LogCounts
from factory_logs.reading.exports import Exports
from factory_logs.reading.pages import Pages
from factory_logs.reading.tail import LogTail
from factory_logs.security.authenticator import Authenticator
from factory_logs.security.ended_tokens import forget_ended_tokens
from factory_logs.security.login import LoginService
from factory_logs.settings import Settings

GC_THRESHOLDS = (20_000, 20, 20)
ROUTERS = (
    log_writes.router,
    tail.router,
    log_stats.router,
    log_reads.router,
    repairs.router,
    auth.router,
    influx.writes,
    influx.router,
    ops.router,
)


class FactoryLogs(FastAPI):
    """FastAPI with the entrance in front of it."""

    entrance: ASGIApp

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.entrance(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> FactoryLogs:
    """The ASGI application of one worker. `settings.database_url` must be set: `serve` sees to the embedded one."""
    if settings.database_url is None:
        raise ValueError("FACTORY_LOGS_DATABASE_URL is not set; factory-logs serve runs an embedded PostgreSQL")
    app = FactoryLogs(
        title="Factory Logs",
        version=__version__,
        description=openapi.DESCRIPTION,
        openapi_tags=openapi.TAGS,
        generate_unique_id_function=lambda route: route.name,
        lifespan=_lifespan,
        docs_url=None,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        redoc_url=None,
        redirect_slashes=False,  # a path with a slash too many is a 404, as in the legacy API
    )
    app.state.settings = settings
    for router in ROUTERS:
        app.include_router(router)
    errors.install(app)
    openapi.install(app)
    if settings.docs_enabled:
        docs.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.state.access_log = AccessLog() if settings.access_log else None
    fastapi = super(FactoryLogs, app).__call__
    entrance = Entrance(fastapi, DirectRoutes(ROUTERS), lambda: app.state.services, app.state.access_log)
    app.entrance = HeadAsGet(entrance)
    return app


def create_app_from_environment() -> FactoryLogs:
    """What uvicorn's worker processes call."""
    settings = Settings()
    logs.configure(settings.log_level)
    app = create_app(settings)
    # What is loaded now stays: the collector need not walk it again, nor look after every few requests.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    with stopping() as stop, ending_with_supervisor():
        async with _running(app, stop):
            yield


@asynccontextmanager
async def _running(app: FastAPI, stop: asyncio.Event) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    assert settings.database_url is not None  # noqa: S101 - create_app has checked it
    database = Database(settings.database_url.get_secret_value(), settings)
    authenticator = Authenticator(database, settings)
    group_commit = GroupCommit(database, settings)
    login = LoginService(database, authenticator, settings)
    connections = BatchConnections(database, settings)
    counts = LogCounts(database, settings)
    app.state.services = Services(
        settings,
        database,
        authenticator,
        login,
        group_commit,
        BatchWriter(connections, settings),
        BodyBudget(settings.max_bodies_bytes),
        Limits(settings.max_record_bytes, settings.max_nesting),
        LogsById(database, settings),
        counts,
        Pages(database, counts, settings),
        Exports(database, settings),
        LogTail(database, settings),
        stop,
    )
    metrics.forget_dead_workers()
    group_commit.start()
    app.state.services.logs_by_id.start()
    chores = [
        asyncio.create_task(database.heartbeat.run(), name="heartbeat"),
        asyncio.create_task(authenticator.run(), name="token-touches"),
        asyncio.create_task(forget_ended_tokens(database, settings.ended_token_seconds), name="ended-tokens"),
        asyncio.create_task(app.state.services.tail.run(), name="tail"),
        asyncio.create_task(app.state.services.counts.run(), name="counts"),
        asyncio.create_task(_measure(app.state.services), name="gauges"),
        asyncio.create_task(forget_old_keys(connections, settings.idempotency_seconds), name="idempotency-keys"),
    ]
    try:
        yield
    finally:
        await group_commit.drain()
        await app.state.services.logs_by_id.stop()
        for chore in chores:
            chore.cancel()
        await asyncio.gather(*chores, return_exceptions=True)
        await connections.close()
        await app.state.services.pages.close()
        await database.dispose()
        if app.state.access_log is not None:
            app.state.access_log.flush()


async def _measure(services: Services) -> None:
    """Each second, what this worker holds."""
    while True:
        logs_waiting, bytes_waiting = services.group_commit.queued
        metrics.QUEUED_LOGS.set(logs_waiting)
        metrics.QUEUED_BYTES.set(bytes_waiting)
        metrics.BODY_BYTES.set(services.bodies.held)
        await asyncio.sleep(1)

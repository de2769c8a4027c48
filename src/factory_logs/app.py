"""Build one worker: routes, services, error handlers, background tasks."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from factory_logs import __version__, logging, metrics
from factory_logs.api.asgi.access_log import AccessLog
from factory_logs.api.asgi.dispatcher import Dispatcher, HeadAsGet
from factory_logs.api.asgi.fast_routes import FastRoutes
from factory_logs.api.asgi.forwarded import Forwarded
from factory_logs.api.asgi.shutdown import stop_event, stop_with_supervisor
from factory_logs.api.http import error_handlers
from factory_logs.api.http.exchange import Exchange
from factory_logs.api.openapi import document, swagger_ui
from factory_logs.api.routes import auth, health, influxdb, influxdb_query, logs, page, repairs, results, stats, tail
from factory_logs.api.services import Services
from factory_logs.db.connection_pool import BatchConnections
from factory_logs.db.database_metrics import DatabaseMetrics
from factory_logs.db.engine import Database
from factory_logs.db.records import RecordRepository
from factory_logs.db.tokens import TokenRepository
from factory_logs.db.users import UserRepository
from factory_logs.durations import vary
from factory_logs.errors import DatabaseConnectError, FactoryLogsError, UnsuitableDatabaseError
from factory_logs.ingest.batch_collector import BatchLimits
from factory_logs.ingest.batch_writer import BatchWriter
from factory_logs.ingest.body_spool import BodyBudget
from factory_logs.ingest.disk_reserve import DiskReserve, embedded_cluster
from factory_logs.ingest.group_commit import GroupCommit
from factory_logs.ingest.idempotency import purge_old_keys
from factory_logs.ingest.single_records import RepairWriter, SingleLogs
from factory_logs.querier.aggregates import Aggregates
from factory_logs.querier.by_id import LogsById
from factory_logs.querier.catalog import CatalogUpdates
from factory_logs.querier.counts import LogCounts
from factory_logs.querier.exports import Exports
from factory_logs.querier.influxql.statements import InfluxqlQueries
from factory_logs.querier.pages import Pages
from factory_logs.querier.result_cache import ResultCache
from factory_logs.querier.sums import Sums
from factory_logs.querier.tail import LogTail
from factory_logs.query import FACTORY_LOGS, REPAIRS, QueryLimits
from factory_logs.retention.schedule import RetentionSchedule
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.security.authenticator import Authenticator
from factory_logs.security.login import LoginService
from factory_logs.settings import Settings

_log = structlog.get_logger(__name__)
AGAIN_SECONDS = 1.0
PURGE_KEYS_SECONDS = 600.0
PURGE_TOKENS_SECONDS = 3600.0
GC_THRESHOLDS = (20_000, 20, 20)
ROUTERS = (
    logs.router,
    tail.router,
    stats.router,
    results.router,
    repairs.router,
    auth.router,
    influxdb.writes,
    influxdb.router,
    influxdb_query.router,
    health.router,
)


class FactoryLogs(FastAPI):
    """A FastAPI application whose requests pass the dispatcher first."""

    dispatcher: ASGIApp
    start_without_task: Callable[[Exchange], bool]
    """Starts a request that needs no task (api/asgi/single_writes.py)."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self.dispatcher(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)


def create_app(settings: Settings) -> FactoryLogs:
    """Return the ASGI application for a worker. It requires `settings.database_url`, which `serve` sets for the
    embedded database."""
    if settings.database_url is None:
        raise ValueError("FACTORY_LOGS_DATABASE_URL is not set; factory-logs serve runs an embedded PostgreSQL")
    app = FactoryLogs(
        title="Factory Logs",
        version=__version__,
        description=document.DESCRIPTION,
        openapi_tags=document.TAGS,
        generate_unique_id_function=lambda route: route.name,
        lifespan=_lifespan,
        docs_url=None,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        redoc_url=None,
        redirect_slashes=False,  # a path with an extra slash gets a 404, as in the legacy API
    )
    app.state.settings = settings
    for router in ROUTERS:
        app.include_router(router)
    error_handlers.install(app)
    document.install(app)
    if settings.docs_enabled:
        swagger_ui.install(app)
    if settings.page_enabled:
        page.install(app)
    app.state.access_log = AccessLog() if settings.access_log else None
    fastapi = super(FactoryLogs, app).__call__
    dispatcher = Dispatcher(fastapi, FastRoutes(ROUTERS), lambda: app.state.services, app.state.access_log)
    app.dispatcher = HeadAsGet(dispatcher)
    app.start_without_task = dispatcher.start_without_task
    if settings.trusted_proxies or settings.root_path:
        forwarded = Forwarded(app.dispatcher, settings.trusted_proxies, settings.root_path)
        app.dispatcher = forwarded
        app.start_without_task = partial(forwarded.start_without_task, dispatcher.start_without_task)
    return app


def create_app_from_environment() -> FactoryLogs:
    """Return the application of a uvicorn worker process."""
    settings = Settings()
    logging.configure(settings.log_level)
    app = create_app(settings)
    # The loaded modules stay in memory, so the garbage collector need not scan them, and it need not run often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    with stop_event() as stop, stop_with_supervisor():
        async with _running(app, stop):
            yield


@asynccontextmanager
async def _running(app: FastAPI, stop: asyncio.Event) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    assert settings.database_url is not None  # noqa: S101 - create_app has checked it
    database = Database(settings.database_url.get_secret_value(), settings)
    await _refuse_unsuitable(database)
    connections = BatchConnections(database, settings)
    services = _services(database, connections, settings, stop)
    app.state.services = services
    metrics.forget_dead_workers()
    metrics.INFO.labels(__version__).set(1)
    await services.disk.check()
    services.group_commit.start()
    services.logs_by_id.start()
    work = _background_work(services, connections)
    tasks = [asyncio.create_task(_restarting(name, run), name=name) for name, run in work.items()]
    try:
        yield
    finally:
        await services.group_commit.drain()
        await services.logs_by_id.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        connections.close()
        services.pages.close()
        await database.dispose()
        if app.state.access_log is not None:
            app.state.access_log.flush()


def _services(database: Database, connections: BatchConnections, settings: Settings, stop: asyncio.Event) -> Services:
    """Return the services of a worker, not yet started."""
    authenticator = Authenticator(database, settings)
    disk = DiskReserve(database, settings, embedded_cluster())
    group_commit = GroupCommit(database, settings, disk)
    known, aggregates = ResultCache(database, settings), Aggregates(database, settings)
    sums = Sums(known, aggregates, settings)
    counts = LogCounts(known, settings)
    limits = RecordLimits(settings.max_record_bytes, settings.max_nesting, settings.max_reported_errors)
    logs_by_id = LogsById(database, settings)
    return Services(
        settings=settings,
        database=database,
        authenticator=authenticator,
        login=LoginService(database, authenticator, settings),
        users=UserRepository(database),
        group_commit=group_commit,
        single_logs=SingleLogs(group_commit, connections, limits, logs_by_id.get),
        batches=BatchWriter(connections, settings, disk),
        bodies=BodyBudget(settings.max_bodies_bytes, settings.max_body_files_bytes),
        limits=limits,
        batch_limits=BatchLimits(settings.max_body_records, settings.max_bad_records, settings.max_reported_errors),
        query_limits=QueryLimits.from_settings(settings),
        logs=RecordRepository(database, FACTORY_LOGS.table),
        repairs=RecordRepository(database, REPAIRS.table),
        repair_writer=RepairWriter(database, connections),
        logs_by_id=logs_by_id,
        counts=counts,
        pages=Pages(database, counts, settings),
        exports=Exports(database, settings),
        aggregates=aggregates,
        known=known,
        sums=sums,
        influxql=InfluxqlQueries(sums, settings),
        tail=LogTail(database, settings),
        disk=disk,
        stopping=stop,
    )


def _background_work(services: Services, connections: BatchConnections) -> dict[str, Callable[[], Awaitable[None]]]:
    """Return the functions that run in the background of a worker, by the name of their task."""
    settings, database = services.settings, services.database
    purge_tokens = partial(TokenRepository(database).purge, settings.ended_token_seconds)
    purge_keys = partial(purge_old_keys, connections, settings.idempotency_seconds)
    work: dict[str, Callable[[], Awaitable[None]]] = {
        "heartbeat": database.heartbeat.run,
        "disk": services.disk.run,
        "token-touches": services.authenticator.run,
        "ended-tokens": partial(purge_regularly, "ended tokens", PURGE_TOKENS_SECONDS, purge_tokens),
        "tail": services.tail.run,
        "known-results": services.known.run,
        "gauges": partial(_measure, services),
        "database-metrics": DatabaseMetrics(database, settings).run,
        "idempotency-keys": partial(purge_regularly, "idempotency keys", PURGE_KEYS_SECONDS, purge_keys),
    }
    if settings.catalog_seconds:
        work["catalog"] = CatalogUpdates(services.sums, settings.catalog_seconds, settings.max_catalog_paths).run
    if settings.retention_policies is not None:
        work["retention"] = RetentionSchedule(settings, settings.retention_policies).run
    return work


async def _restarting(name: str, run: Callable[[], Awaitable[None]]) -> None:
    """Run a background task, and restart it after an unexpected error. The worker continues without it in the
    meantime."""
    while True:
        try:
            await run()
        except Exception:  # noqa: BLE001 - the next try may succeed
            _log.exception("a background task failed and is restarted", task=name)
        await asyncio.sleep(AGAIN_SECONDS)


async def _refuse_unsuitable(database: Database) -> None:
    """Raise UnsuitableDatabaseError if the database cannot be used. Raise nothing if it is unreachable: requests then
    get a 503."""
    try:
        await database.check()
    except UnsuitableDatabaseError as error:
        _log.error("the database cannot be used", reason=error.reason)
        raise
    except DatabaseConnectError as error:
        _log.warning("cannot connect to the database", reason=error.reason)


async def _measure(services: Services) -> None:
    """Update the gauges of this worker each second."""
    while True:
        logs_waiting, bytes_waiting = services.group_commit.queued
        metrics.QUEUED_LOGS.set(logs_waiting)
        metrics.QUEUED_BYTES.set(bytes_waiting)
        metrics.BODY_BYTES.set(services.bodies.held)
        metrics.DATABASE_UP.set(services.database.heartbeat.is_responding)
        await asyncio.sleep(1)


async def purge_regularly(rows: str, every_seconds: float, purge: Callable[[], Awaitable[int]]) -> None:
    """Call `purge` about every `every_seconds` until cancelled, and log the number of deleted `rows`.

    The intervals vary, so that workers rarely purge at the same time. After an error, such as an unavailable database,
    the next call happens at the usual time.
    """
    while True:
        await asyncio.sleep(vary(every_seconds))
        try:
            deleted = await purge()
        except FactoryLogsError as error:
            _log.warning("expired rows could not be deleted", rows=rows, reason=error.message)
            continue
        if deleted:
            _log.info("rows purged", rows=rows, deleted=deleted)

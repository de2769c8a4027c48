"""Puts the service together: routers, lifespan, error answers. Nothing else."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from factory_logs import __version__, logs
from factory_logs.api import auth, errors, log_reads, log_writes, openapi, ops, repairs
from factory_logs.api.middleware import BodyLimit, RequestContext
from factory_logs.api.services import Services
from factory_logs.db.engine import Database
from factory_logs.ingest.group_commit import GroupCommit
from factory_logs.security.authenticator import Authenticator
from factory_logs.security.login import LoginService
from factory_logs.security.throttle import LoginThrottle
from factory_logs.settings import Settings

DESCRIPTION = """\
Stores and serves the product logs of factories and repair centres.

Press **Authorize** and enter `Token token=<token>`; a token comes from `POST /v1/auth/login`.
"""


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application of one worker. `settings.database_url` must be set: `serve` sees to the embedded one."""
    if settings.database_url is None:
        raise ValueError("FACTORY_LOGS_DATABASE_URL is not set; factory-logs serve runs an embedded PostgreSQL")
    app = FastAPI(
        title="Factory Logs",
        version=__version__,
        description=DESCRIPTION,
        lifespan=_lifespan,
        docs_url="/docs" if settings.docs_enabled else None,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        redoc_url=None,
    )
    app.state.settings = settings
    for router in (log_writes.router, log_reads.router, repairs.router, auth.router, ops.router):
        app.include_router(router)
    errors.install(app)
    openapi.install(app)
    app.add_middleware(BodyLimit, max_bytes=settings.max_body_bytes)
    app.add_middleware(RequestContext, access_log=settings.access_log)
    return app


def create_app_from_environment() -> FastAPI:
    """What uvicorn's worker processes call."""
    settings = Settings()
    logs.configure(settings.log_level)
    return create_app(settings)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    settings: Settings = app.state.settings
    assert settings.database_url is not None  # noqa: S101 - create_app has checked it
    database = Database(settings.database_url.get_secret_value(), settings)
    authenticator = Authenticator(database, settings)
    group_commit = GroupCommit(database, settings)
    throttle = LoginThrottle(settings.login_max_failures, settings.login_window_seconds)
    login = LoginService(database, authenticator, settings, throttle=throttle)
    app.state.services = Services(settings, database, authenticator, login, group_commit)
    group_commit.start()
    touches = asyncio.create_task(authenticator.run(), name="token-touches")
    try:
        yield
    finally:
        await group_commit.drain()
        touches.cancel()
        await asyncio.gather(touches, return_exceptions=True)
        await database.dispose()

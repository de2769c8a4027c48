"""For operators: whether the service lives, whether it can serve, and how it does."""

import asyncio

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from factory_logs import metrics
from factory_logs.api.answers import json_answer
from factory_logs.api.deps import ServicesDep
from factory_logs.api.errors import error_answer
from factory_logs.api.openapi import errors
from factory_logs.db import migrate

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """This process runs."""
    return {"status": "ok"}


@router.get("/readyz", responses=errors(503))
async def ready(request: Request, services: ServicesDep) -> Response:
    """The database can be reached and its migrations are current; else a 503."""
    await services.database.ping()
    current = await migrate.current(services.database)
    if current != migrate.head():
        return error_answer(request, 503, "The database's migrations are not current: run factory-logs migrate")
    return json_answer({"status": "ok", "migration": current})


@router.get("/metrics", response_class=PlainTextResponse)
async def prometheus_metrics() -> Response:
    """Requests, queues and commits of all workers, in Prometheus' text format."""
    return Response(await asyncio.to_thread(metrics.exposition), media_type=CONTENT_TYPE_LATEST)

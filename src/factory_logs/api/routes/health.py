"""Calls for operators: liveness, readiness, and metrics."""

import asyncio

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import PlainTextResponse, Response

from factory_logs import metrics
from factory_logs.api.dependencies import ServicesDep
from factory_logs.api.http.error_handlers import error_response
from factory_logs.api.http.responses import json_response
from factory_logs.api.openapi.document import errors
from factory_logs.errors import DiskNearlyFullError

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def alive() -> dict[str, str]:
    """Return 200: this process runs."""
    return {"status": "ok"}


@router.get("/readyz", responses=errors(503))
async def ready(request: Request, services: ServicesDep) -> Response:
    """Return 200 if the database is reachable and its migrations are current, else 503.

    `warnings` lists problems that do not stop the service, but that the operator must solve.
    """
    await services.database.ping()
    current, needed = await services.migrations()
    if current != needed:
        return error_response(request, 503, "The database's migrations are not current: run factory-logs migrate")
    warnings = [DiskNearlyFullError().message] if services.disk.is_low else []
    return json_response({"status": "ok", "migration": current} | ({"warnings": warnings} if warnings else {}))


@router.get("/metrics", response_class=PlainTextResponse)
async def prometheus_metrics() -> Response:
    """Return the metrics of all workers in the text format of Prometheus."""
    return Response(await asyncio.to_thread(metrics.exposition), media_type=CONTENT_TYPE_LATEST)

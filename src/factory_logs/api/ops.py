"""For operators: whether the service lives and whether it can serve."""

from fastapi import APIRouter, Request
from starlette.responses import Response

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

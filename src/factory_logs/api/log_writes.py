"""Storing logs: `POST /v1/factory_logs` (SPEC 2, 7)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.answers import json_answer, json_body
from factory_logs.api.deps import ServicesDep, Writer
from factory_logs.api.openapi import document_body, errors
from factory_logs.api.paging import record_url
from factory_logs.db.log_writes import Stored
from factory_logs.db.records import log_record
from factory_logs.ingest.records import Limits, parse_log
from factory_logs.schemas.factory_log import FactoryLogIn, FactoryLogOut

router = APIRouter(prefix="/v1/factory_logs", tags=["factory logs"])


@router.post(
    "",
    status_code=201,
    response_model=FactoryLogOut,
    responses=errors(400, 401, 403, 413, 415, 503),
    openapi_extra=document_body(FactoryLogIn),
)
async def create_factory_log(request: Request, user: Writer, services: ServicesDep) -> Response:
    """Store one log. 201 means that PostgreSQL has committed and flushed it."""
    settings = services.settings
    log = parse_log(await json_body(request), Limits(settings.max_record_bytes, settings.max_nesting))
    stored: Stored = await services.group_commit.store(log, user.username)
    location = record_url(request, stored.factory_log_id)
    return json_answer(log_record(log, stored, user.username), 201, {"Location": location})

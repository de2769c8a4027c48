"""`/v1/factory_logs` (SPEC 2, 4)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.answers import json_answer, json_body
from factory_logs.api.deps import Logs, Reader, ServicesDep, Writer
from factory_logs.api.openapi import document_body, errors
from factory_logs.api.paging import Paging, answer_query, record_url
from factory_logs.db.log_writes import Stored
from factory_logs.db.records import log_record
from factory_logs.errors import NotFoundError
from factory_logs.ingest.records import Limits, parse_log
from factory_logs.query import FACTORY_LOGS
from factory_logs.schemas.factory_log import FactoryLogIn, FactoryLogOut, FactoryLogPage

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


@router.get("", response_model=FactoryLogPage, responses=errors(400, 401, 403, 404, 503))
async def list_factory_logs(request: Request, _: Reader, paging: Paging, logs: Logs, services: ServicesDep) -> Response:
    """The logs that `q` selects, page by page; with `single` the one log itself."""
    return await answer_query(request, paging, FACTORY_LOGS, logs, services.settings)


@router.get("/{factory_log_id}", response_model=FactoryLogOut, responses=errors(401, 403, 404, 503))
async def get_factory_log(factory_log_id: str, _: Reader, logs: Logs) -> Response:
    """One log by its id."""
    record = await logs.get(record_id(factory_log_id))
    if record is None:
        raise NotFoundError(f"There is no factory log {factory_log_id[:50]}")
    return json_answer(record)


def record_id(text: str) -> int:
    """The id in a path; text that is no id is the id of no record (SPEC 2)."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else 0

"""Asking for logs: `GET /v1/factory_logs` (SPEC 2, 4)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.caching import unchanging
from factory_logs.api.deps import Logs, Reader, ServicesDep
from factory_logs.api.direct import DirectRoute
from factory_logs.api.log_reads_openapi import CACHED, EXPORTS, IF_NONE_MATCH, PAGING
from factory_logs.api.openapi import errors
from factory_logs.api.paging import answer_query, record_id
from factory_logs.api.streams import unless_gone
from factory_logs.errors import NotFoundError
from factory_logs.query import FACTORY_LOGS
from factory_logs.schemas.factory_log import FactoryLogOut, FactoryLogPage

router = APIRouter(prefix="/v1/factory_logs", tags=["factory logs"], route_class=DirectRoute)


@router.get(
    "", response_model=FactoryLogPage, responses=errors(400, 401, 403, 404, 503) | EXPORTS, openapi_extra=PAGING
)
async def list_factory_logs(request: Request, _: Reader, logs: Logs, services: ServicesDep) -> Response:
    """The logs that `q` selects, page by page; with `single` the one log itself.

    With `Accept: application/x-ndjson` or `text/csv` all of them as one stream; `page` and `cursor` say nothing then.
    """
    return await answer_query(request, FACTORY_LOGS, logs, services)


@router.get(
    "/{factory_log_id}",
    response_model=FactoryLogOut,
    responses=errors(401, 403, 404, 503) | CACHED,
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def get_factory_log(request: Request, factory_log_id: str, _: Reader, services: ServicesDep) -> Response:
    """One log by its id. It never changes, so a client may keep it."""
    record = await unless_gone(request.receive, services.logs_by_id.get(record_id(factory_log_id)))
    if record is None:
        raise NotFoundError(f"There is no factory log {factory_log_id[:50]}")
    return unchanging(request, record.encode(), services.settings.record_cache_seconds)

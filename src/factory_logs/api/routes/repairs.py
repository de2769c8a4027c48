"""`/v1/repairs`: the repairs that a log's `repair_id` refers to (docs/reference/http-api.md#repairs)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.asgi.fast_routes import FastRoute
from factory_logs.api.dependencies import Reader, ServicesDep, Writer
from factory_logs.api.http.query_responses import query_response
from factory_logs.api.http.request_body import json_body
from factory_logs.api.http.responses import JsonResponse, collection_url, created, record_id
from factory_logs.api.http.streaming import cancel_on_disconnect
from factory_logs.api.openapi.document import document_body, errors, link_to
from factory_logs.api.openapi.parameters import CONTENT_ENCODING, EXPORTS, IDEMPOTENCY_KEY, PAGING
from factory_logs.errors import NotFoundError
from factory_logs.query import REPAIRS
from factory_logs.schemas.repair import RepairIn, RepairOut, RepairPage

router = APIRouter(prefix="/v1/repairs", tags=["repairs"], route_class=FastRoute)


@router.post(
    "",
    status_code=201,
    response_model=RepairOut,
    responses=errors(400, 401, 403, 408, 409, 413, 415, 503) | link_to("get_repair", "repair_id"),
    openapi_extra=document_body(RepairIn) | {"parameters": [IDEMPOTENCY_KEY, CONTENT_ENCODING]},
)
async def create_repair(request: Request, user: Writer, services: ServicesDep) -> Response:
    """Store one repair."""
    body, key = await json_body(request, services, user.user_id)
    stored = await services.repair_writer.store(body, user.username, key)
    return created(stored.body, collection_url(request.scope), stored.record_id, replayed=stored.replayed)


@router.get("", response_model=RepairPage, responses=errors(400, 401, 403, 404, 503) | EXPORTS, openapi_extra=PAGING)
async def list_repairs(request: Request, _: Reader, services: ServicesDep) -> Response:
    """Return a page of the repairs that `q` selects, or with `single` the single repair itself."""
    return await query_response(request, REPAIRS, services)


@router.get("/{repair_id}", response_model=RepairOut, responses=errors(401, 403, 404, 503))
async def get_repair(request: Request, repair_id: str, _: Reader, services: ServicesDep) -> Response:
    """Return the repair with this id."""
    record = await cancel_on_disconnect(request.receive, services.repairs.get(record_id(repair_id)))
    if record is None:
        raise NotFoundError(f"There is no repair {repair_id[:50]}")
    return JsonResponse(record.encode())

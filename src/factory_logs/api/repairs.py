"""`/v1/repairs`: the rows that `repair_id` points at (SPEC 2)."""

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.answers import JsonAnswer, created
from factory_logs.api.bodies import json_body
from factory_logs.api.deps import Reader, Repairs, RepairWrites, ServicesDep, Writer
from factory_logs.api.direct import DirectRoute
from factory_logs.api.log_reads_openapi import EXPORTS, PAGING
from factory_logs.api.log_writes_openapi import CONTENT_ENCODING, IDEMPOTENCY_KEY
from factory_logs.api.openapi import document_body, errors, leads_to
from factory_logs.api.paging import answer_query, record_id
from factory_logs.api.streams import unless_gone
from factory_logs.db.idempotency import FirstAnswer
from factory_logs.db.repairs import COLUMNS
from factory_logs.errors import NotFoundError
from factory_logs.ingest.idempotency import check_same, just_forgotten
from factory_logs.ingest.records import parse_model
from factory_logs.query import REPAIRS
from factory_logs.schemas.repair import RepairIn, RepairOut, RepairPage

router = APIRouter(prefix="/v1/repairs", tags=["repairs"], route_class=DirectRoute)


@router.post(
    "",
    status_code=201,
    response_model=RepairOut,
    responses=errors(400, 401, 403, 408, 409, 413, 415, 503) | leads_to("get_repair", "repair_id"),
    openapi_extra=document_body(RepairIn) | {"parameters": [IDEMPOTENCY_KEY, CONTENT_ENCODING]},
)
async def create_repair(request: Request, user: Writer, repairs: RepairWrites, services: ServicesDep) -> Response:
    """Store one repair."""
    text, key = await json_body(request, services, user.user_id)
    repair = parse_model(RepairIn, text)
    values = {name: getattr(repair, name) for name in COLUMNS}
    if key is None:
        record = await repairs.add(values, user.username)
        return created(record, request.scope, record["repair_id"])
    result = await repairs.add_once(values, user.username, key)
    if result is None:
        raise just_forgotten()
    if isinstance(result, FirstAnswer):
        check_same(key, result.fingerprint)
        first = orjson.loads(result.answer or b"")
        return created(first, request.scope, first["repair_id"], replayed=True)
    return created(result, request.scope, result["repair_id"])


@router.get("", response_model=RepairPage, responses=errors(400, 401, 403, 404, 503) | EXPORTS, openapi_extra=PAGING)
async def list_repairs(request: Request, _: Reader, repairs: Repairs, services: ServicesDep) -> Response:
    """The repairs that `q` selects, page by page; with `single` the one repair itself."""
    return await answer_query(request, REPAIRS, repairs, services)


@router.get("/{repair_id}", response_model=RepairOut, responses=errors(401, 403, 404, 503))
async def get_repair(request: Request, repair_id: str, _: Reader, repairs: Repairs) -> Response:
    """One repair by its id."""
    record = await unless_gone(request.receive, repairs.get(record_id(repair_id)))
    if record is None:
        raise NotFoundError(f"There is no repair {repair_id[:50]}")
    return JsonAnswer(record.encode())

"""`/v1/repairs`: the rows that `repair_id` points at (SPEC 2)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.answers import json_answer, json_body
from factory_logs.api.deps import Reader, Repairs, RepairWrites, ServicesDep, Writer
from factory_logs.api.openapi import document_body, errors
from factory_logs.api.paging import Paging, answer_query, record_id, record_url
from factory_logs.errors import NotFoundError
from factory_logs.ingest.records import parse_model
from factory_logs.query import REPAIRS
from factory_logs.schemas.repair import RepairIn, RepairOut, RepairPage

router = APIRouter(prefix="/v1/repairs", tags=["repairs"])


@router.post(
    "",
    status_code=201,
    response_model=RepairOut,
    responses=errors(400, 401, 403, 413, 415, 503),
    openapi_extra=document_body(RepairIn),
)
async def create_repair(request: Request, user: Writer, repairs: RepairWrites) -> Response:
    """Store one repair."""
    repair = parse_model(RepairIn, await json_body(request))
    record = await repairs.add(dict(repair_values(repair)), user.username)
    return json_answer(record, 201, {"Location": record_url(request, record["repair_id"])})


def repair_values(repair: RepairIn) -> dict[str, object]:
    """The columns that a client sets."""
    columns = RepairIn.model_fields.keys() - {"repair_id", "created_at", "created_by", "modified_at", "modified_by"}
    return {name: getattr(repair, name) for name in columns}


@router.get("", response_model=RepairPage, responses=errors(400, 401, 403, 404, 503))
async def list_repairs(
    request: Request, _: Reader, paging: Paging, repairs: Repairs, services: ServicesDep
) -> Response:
    """The repairs that `q` selects, page by page; with `single` the one repair itself."""
    return await answer_query(request, paging, REPAIRS, repairs, services.settings)


@router.get("/{repair_id}", response_model=RepairOut, responses=errors(401, 403, 404, 503))
async def get_repair(repair_id: str, _: Reader, repairs: Repairs) -> Response:
    """One repair by its id."""
    record = await repairs.get(record_id(repair_id))
    if record is None:
        raise NotFoundError(f"There is no repair {repair_id[:50]}")
    return json_answer(record)

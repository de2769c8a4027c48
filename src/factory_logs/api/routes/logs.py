"""`/v1/factory_logs`: store logs, return pages of logs, or return one log by its id
(docs/reference/http-api.md#calls)."""

from urllib.parse import parse_qs

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Scope

from factory_logs import metrics
from factory_logs.api.asgi.fast_routes import FastRoute
from factory_logs.api.asgi.single_writes import Head, ReadBody, SingleWrite, single_write
from factory_logs.api.dependencies import LogWriter, Reader, ServicesDep
from factory_logs.api.http.caching import record_response
from factory_logs.api.http.error_handlers import domain_error
from factory_logs.api.http.query_responses import query_response
from factory_logs.api.http.request_body import JSON_TYPES, Body
from factory_logs.api.http.responses import REPLAYED, JsonResponse, collection_url, created, record_id, route_path
from factory_logs.api.http.streaming import cancel_on_disconnect
from factory_logs.api.openapi.document import errors
from factory_logs.api.openapi.parameters import CACHED, DOCUMENTATION, EXPORTS, IF_NONE_MATCH, PAGING
from factory_logs.api.services import Services
from factory_logs.errors import BadRequestError, FieldError, NotFoundError, TooLargeError
from factory_logs.ingest.batch_collector import Batch, read_parts
from factory_logs.ingest.batch_decoder import BatchReader, NdjsonReader
from factory_logs.ingest.batch_writer import BatchResult, WriteBody, WriteResponse
from factory_logs.ingest.idempotency import REFUSALS, KeyedBody, WriteKey, key_of
from factory_logs.permissions import CurrentUser
from factory_logs.query import FACTORY_LOGS
from factory_logs.schemas.factory_log import FactoryLogOut, FactoryLogPage

router = APIRouter(prefix="/v1/factory_logs", tags=["factory logs"], route_class=FastRoute)


def _read_head(head: Head) -> ReadBody | None:
    """Return the function that reads a single log, if the head is that of an ordinary request."""
    if head.headers.get(b"content-type") not in JSON_TYPES or head.scope["query_string"]:
        return None
    url, route = collection_url(head.scope), _route_of_keys(head.scope, "JSON", skip_bad=False)
    key_header = head.headers.get(b"idempotency-key")

    def read_body(body: bytearray, user: CurrentUser, services: Services) -> SingleWrite | None:
        prepared = services.single_logs.prepare(body, user.username)
        if prepared is None:
            return None
        log, record = prepared
        key = key_of(key_header, user.user_id, route, body)
        return SingleWrite(
            log, lambda stored: created(record.stored(stored), url, stored.factory_log_id), domain_error, key
        )

    return read_body


@router.post("", status_code=201, **DOCUMENTATION)
@single_write(_read_head)
async def create_factory_logs(request: Request, user: LogWriter, services: ServicesDep) -> Response:
    """Store one log, or a batch: a JSON array or NDJSON. 201 means that PostgreSQL has flushed it to disk."""
    headers = dict(request.scope["headers"])
    try:
        return await _store(request, headers, user, services)
    except TooLargeError as error:
        header = headers.get(b"idempotency-key")
        if header is not None and error.is_key_used is None:  # the body was not read, so it cannot be compared
            error.is_key_used = await services.batches.is_key_used(user.user_id, header)
        raise


@router.get(
    "", response_model=FactoryLogPage, responses=errors(400, 401, 403, 404, 503) | EXPORTS, openapi_extra=PAGING
)
async def list_factory_logs(request: Request, _: Reader, services: ServicesDep) -> Response:
    """Return a page of the logs that `q` selects, or with `single` the single log itself.

    With `Accept: application/x-ndjson` or `text/csv`, return all of them as one stream, without `page` and `cursor`.
    """
    return await query_response(request, FACTORY_LOGS, services)


@router.get(
    "/{factory_log_id}",
    response_model=FactoryLogOut,
    responses=errors(401, 403, 404, 503) | CACHED,
    openapi_extra={"parameters": [IF_NONE_MATCH]},
)
async def get_factory_log(request: Request, factory_log_id: str, _: Reader, services: ServicesDep) -> Response:
    """Return the log with this id. It never changes, so a client may cache it."""
    record = await cancel_on_disconnect(request.receive, services.logs_by_id.get(record_id(factory_log_id)))
    if record is None:
        raise NotFoundError(f"There is no factory log {factory_log_id[:50]}")
    return record_response(request, record.encode(), services.settings.record_cache_seconds)


async def _store(request: Request, headers: dict[bytes, bytes], user: CurrentUser, services: Services) -> Response:
    skip_bad = _skip_bad(request)
    with Body(headers, request.receive, services.settings, services.bodies) as body:
        if body.is_ndjson:
            header = headers.get(b"idempotency-key")
            route = _route_of_keys(request.scope, "NDJSON", skip_bad=skip_bad)
            keyed = None if header is None else KeyedBody(user.user_id, header, route)
            return await _store_ndjson(body, keyed, user, services, skip_bad)
        body.require_json()
        text = await body.read()
        is_array = text.lstrip()[:1] == b"["
        route = _route_of_keys(request.scope, "JSON", skip_bad=skip_bad and is_array)
        key = key_of(headers.get(b"idempotency-key"), user.user_id, route, text)
        if not is_array:
            stored = await services.single_logs.store(text, user.username, key)
            return created(stored.body, collection_url(request.scope), stored.record_id, replayed=stored.replayed)
        reader = BatchReader(services.limits, services.batch_limits)
        try:
            await reader.read_array(text)
            return await _store_batch(reader.take(), key, user, services, skip_bad)
        except REFUSALS as error:
            return _batch_response(await services.batches.first_response(key, error))


async def _store_ndjson(
    body: Body, keyed: KeyedBody | None, user: CurrentUser, services: Services, skip_bad: bool
) -> Response:
    """Store the body after all of it has arrived. Otherwise a slow client would hold a connection, a transaction and
    ids."""
    size = await body.spool()
    part_bytes = services.settings.batch_part_bytes
    reader = NdjsonReader(BatchReader(services.limits, services.batch_limits))
    texts = body.parts(part_bytes, keyed)
    parts = read_parts(texts, reader)
    try:
        if size <= part_bytes:
            return await _store_batch(await anext(parts), _key(keyed), user, services, skip_bad)
        result = await services.batches.store_stream(
            parts, user.username, lambda: _key(keyed), _batch_body(skip_bad), skip_bad=skip_bad
        )
        return _batch_response(result)
    except REFUSALS as error:
        async for _ in texts:
            pass  # the key covers the whole body
        return _batch_response(await services.batches.first_response(_key(keyed), error))


async def _store_batch(
    batch: Batch, key: WriteKey | None, user: CurrentUser, services: Services, skip_bad: bool
) -> Response:
    result = await services.batches.store(batch, user.username, key, _batch_body(skip_bad), skip_bad=skip_bad)
    return _batch_response(result)


def _batch_response(result: WriteResponse) -> Response:
    return JsonResponse(result.body, 201, REPLAYED if result.replayed else None)


def _batch_body(skip_bad: bool) -> WriteBody:
    return _partly_created if skip_bad else _all_created


def _all_created(result: BatchResult) -> bytes:
    return orjson.dumps(_created(result))


def _partly_created(result: BatchResult) -> bytes:
    metrics.LEFT_OUT.labels("batch").inc(result.rejected)
    rejected = {"num_rejected": result.rejected, "errors": [error.as_json() for error in result.errors]}
    return orjson.dumps(_created(result) | rejected)


def _created(result: BatchResult) -> dict[str, object]:
    ids = result.ids
    return {
        "num_created": len(ids),
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "ids": ids,
    }


def _route_of_keys(scope: Scope, kind: str, *, skip_bad: bool) -> str:
    """Return the route that a key covers."""
    return f"{kind} {route_path(scope)} {skip_bad}"


def _key(keyed: KeyedBody | None) -> WriteKey | None:
    return None if keyed is None else keyed.key()


def _skip_bad(request: Request) -> bool:
    """Return whether to skip bad records of a batch: `?on_error=skip`. Raises BadRequestError for other values."""
    query = request.scope["query_string"]
    if not query:
        return False
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("on_error", [])
    if any(value != "skip" for value in values):
        raise BadRequestError("Validation failed", [FieldError("on_error", "expected skip, or no on_error")])
    return bool(values)

"""Storing logs: `POST /v1/factory_logs` (SPEC 2, 7)."""

from collections.abc import AsyncIterator
from urllib.parse import parse_qs

import orjson
from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs import metrics
from factory_logs.api.answers import REPLAYED, JsonAnswer, created
from factory_logs.api.bodies import Body
from factory_logs.api.deps import ServicesDep, Writer
from factory_logs.api.direct import DirectRoute
from factory_logs.api.log_writes_openapi import DOCUMENTATION
from factory_logs.api.services import Services
from factory_logs.db.idempotency import FirstAnswer
from factory_logs.db.log_writes import Stored
from factory_logs.db.records import log_record
from factory_logs.errors import BadRequestError, FieldError
from factory_logs.ingest.batch import Batch, BatchResult
from factory_logs.ingest.batch_reading import BatchReader, read_ndjson
from factory_logs.ingest.idempotency import KeyedBody, WriteKey, check_same
from factory_logs.ingest.quick_reading import read_log
from factory_logs.security.authenticator import CurrentUser

router = APIRouter(prefix="/v1/factory_logs", tags=["factory logs"], route_class=DirectRoute)


@router.post("", status_code=201, **DOCUMENTATION)
async def create_factory_logs(request: Request, user: Writer, services: ServicesDep) -> Response:
    """Store one log, or a batch of them: a JSON array, or NDJSON. 201 means that PostgreSQL has flushed it."""
    headers = dict(request.scope["headers"])
    skip_bad = _skip_bad(request)
    with Body(headers, request.receive, services.settings, services.bodies) as body:
        if body.is_ndjson:
            keyed = _keyed(headers, user, f"NDJSON {request.scope['path']} {skip_bad}")
            return await _store_ndjson(body, keyed, user, services, skip_bad)
        body.require_json()
        text = await body.whole()
        is_array = text.lstrip()[:1] == b"["
        keyed = _keyed(headers, user, f"JSON {request.scope['path']} {skip_bad and is_array}")
        if keyed is not None:
            keyed.feed(text)
        key = _key(keyed)
        if not is_array:
            return await _store_one(request, text, key, user, services)
        reader = BatchReader(services.limits, services.settings.max_reported_errors)
        await reader.read_array(text)
        return await _store_batch(reader.take(), key, user, services, skip_bad)


async def _store_one(
    request: Request, text: bytes, key: WriteKey | None, user: CurrentUser, services: Services
) -> Response:
    log = read_log(text, services.limits)
    result = await services.group_commit.store(log, user.username, key)
    if isinstance(result, Stored):
        return created(log_record(log, result, user.username), request.scope, result.factory_log_id)
    assert key is not None  # noqa: S101 - only a key has a first answer
    check_same(key, result.fingerprint)
    # The same body by the same user: the record need not be read to be given again.
    stored = Stored(result.factory_log_id or 0, result.created_at)
    return created(log_record(log, stored, user.username), request.scope, stored.factory_log_id, replayed=True)


async def _store_batch(
    batch: Batch, key: WriteKey | None, user: CurrentUser, services: Services, skip_bad: bool
) -> Response:
    answer = _partial_answer if skip_bad else _whole_answer
    if key is None:
        return JsonAnswer(answer(await services.batches.store(batch, user.username, skip_bad=skip_bad)), 201)
    result = await services.batches.store_once(batch, user.username, key, answer, skip_bad=skip_bad)
    return _answer_once(result, key)


async def _store_ndjson(
    body: Body, keyed: KeyedBody | None, user: CurrentUser, services: Services, skip_bad: bool
) -> Response:
    """A body of one part is read whole before it takes a connection; a longer one is stored as it arrives."""
    reader = BatchReader(services.limits, services.settings.max_reported_errors)
    parts = read_ndjson(_fingerprinted(body, keyed), reader, services.settings.batch_part_bytes)
    first = await anext(parts)
    second = await anext(parts, None)
    if second is None:
        return await _store_batch(first, _key(keyed), user, services, skip_bad)

    async def all_parts() -> AsyncIterator[Batch]:
        yield first
        body.release()
        yield second
        async for part in parts:
            yield part
            body.release()

    answer = _partial_answer if skip_bad else _whole_answer
    result = await services.batches.store_stream(
        all_parts(), user.username, lambda: _key(keyed), answer, skip_bad=skip_bad
    )
    return _answer_once(result, _key(keyed))


async def _fingerprinted(body: Body, keyed: KeyedBody | None) -> AsyncIterator[bytes]:
    async for piece in body.pieces():
        if keyed is not None:
            keyed.feed(piece)
        yield piece


def _whole_answer(result: BatchResult) -> bytes:
    return orjson.dumps(_created(result))


def _partial_answer(result: BatchResult) -> bytes:
    metrics.LEFT_OUT.labels("batch").inc(result.rejected)
    left_out = {"num_rejected": result.rejected, "errors": [fault.as_json() for fault in result.faults]}
    return orjson.dumps(_created(result) | left_out)


def _created(result: BatchResult) -> dict[str, object]:
    ids = result.ids
    return {
        "num_created": len(ids),
        "first_id": ids[0] if ids else None,
        "last_id": ids[-1] if ids else None,
        "ids": ids,
    }


def _answer_once(result: bytes | FirstAnswer, key: WriteKey | None) -> Response:
    if isinstance(result, bytes):
        return JsonAnswer(result, 201)
    assert key is not None  # noqa: S101 - only a key has a first answer
    check_same(key, result.fingerprint)
    return JsonAnswer(result.answer or b"", 201, REPLAYED)


def _keyed(headers: dict[bytes, bytes], user: CurrentUser, route: str) -> KeyedBody | None:
    header = headers.get(b"idempotency-key")
    return None if header is None else KeyedBody(user.user_id, header, route)


def _key(keyed: KeyedBody | None) -> WriteKey | None:
    return None if keyed is None else keyed.key()


def _skip_bad(request: Request) -> bool:
    """Whether bad records of a batch are left out: `?on_error=skip`. Raises BadRequestError for another value."""
    query = request.scope["query_string"]
    if not query:
        return False
    asked = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("on_error", [])
    if any(value != "skip" for value in asked):
        raise BadRequestError("Validation failed", [FieldError("on_error", "expected skip, or nothing")])
    return bool(asked)

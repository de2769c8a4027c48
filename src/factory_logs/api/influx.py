"""InfluxDB's writers: `POST /write` (1.x), `POST /api/v2/write` (2.x), and what their clients ask besides (SPEC 8).

A line is a log. The good lines of a write are stored and the bad ones told, in both versions; the lines of one request
are one transaction, so that a 5xx means that none is stored.
"""

import re
import time
from collections.abc import AsyncIterator
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs import metrics
from factory_logs.api.answers import json_answer
from factory_logs.api.bodies import Body
from factory_logs.api.deps import ServicesDep
from factory_logs.api.direct import DirectRoute
from factory_logs.api.influx_access import parameters, unit_of, writer
from factory_logs.api.influx_answers import (
    EMULATED_VERSION,
    VERSION_HEADERS,
    Dialect,
    Rejected,
    Version1,
    Version2,
    answer,
    error_answer,
)
from factory_logs.api.influx_openapi import HEALTH, PING, QUERY, WRITE_1, WRITE_2
from factory_logs.api.services import Services
from factory_logs.db.idempotency import FirstAnswer
from factory_logs.errors import BadRequestError, FactoryLogsError, FieldError, NotFoundError
from factory_logs.influx.reading import PIECE_BYTES, LineProtocolReader, read_line_protocol
from factory_logs.ingest.batch import Batch, BatchResult
from factory_logs.ingest.idempotency import KeyedBody, WriteKey, check_same, retry_key
from factory_logs.security.authenticator import CurrentUser

DATABASE = "factory_logs"
"""The one database there is, whatever a writer calls its own."""

router = APIRouter(tags=["InfluxDB"])
writes = APIRouter(tags=["InfluxDB"], route_class=DirectRoute)
_VERSION_1, _VERSION_2 = Version1(), Version2()
_CREATE_DATABASE = re.compile(r"\s*CREATE\s+DATABASE\s+\S.*", re.IGNORECASE | re.DOTALL)
_SHOW_DATABASES = re.compile(r"\s*SHOW\s+DATABASES\s*;?\s*", re.IGNORECASE)


@writes.post("/write", status_code=204, **WRITE_1)
async def write(request: Request, services: ServicesDep) -> Response:
    """Store points in line protocol, as InfluxDB 1.x does. 204 means that PostgreSQL has flushed them all."""
    try:
        asked = parameters(request)
        user = await writer(request, services, asked)
        if not asked.get("db"):
            raise BadRequestError("database is required")
        route = f"/write {unit_of(asked)} {asked['db']!r} {asked.get('rp', '')!r}"
        return await _Write(request, services, user, _VERSION_1, route).store(unit_of(asked))
    except FactoryLogsError as error:
        return error_answer(_VERSION_1, error)


@writes.post("/api/v2/write", status_code=204, **WRITE_2)
async def write_v2(request: Request, services: ServicesDep) -> Response:
    """Store points in line protocol, as InfluxDB 2.x does. 204 means that PostgreSQL has flushed them all."""
    try:
        asked = parameters(request)
        user = await writer(request, services, asked)
        if not asked.get("bucket"):
            raise NotFoundError("bucket not found: name one, any, as ?bucket=")
        organisation = asked.get("org") or asked.get("orgID", "")
        route = f"/api/v2/write {unit_of(asked)} {asked['bucket']!r} {organisation!r}"
        return await _Write(request, services, user, _VERSION_2, route, refuse_nothing=True).store(unit_of(asked))
    except FactoryLogsError as error:
        return error_answer(_VERSION_2, error)


class _Write:
    """One write, from its body to its answer."""

    def __init__(
        self,
        request: Request,
        services: Services,
        user: CurrentUser,
        dialect: Dialect,
        route: str,
        *,
        refuse_nothing: bool = False,
    ) -> None:
        """Raises BadRequestError for an Idempotency-Key that is none."""
        self._request = request
        self._services = services
        self._user = user
        self._dialect = dialect
        self._refuse_nothing = refuse_nothing
        self._headers = dict(request.scope["headers"])
        self._header = self._headers.get(b"idempotency-key")
        self._keyed = KeyedBody(user.user_id, b"-" if self._header is None else self._header, route)

    async def store(self, unit_ns: int) -> Response:
        """Raises a FactoryLogsError where nothing at all was stored."""
        services, settings = self._services, self._services.settings
        self._reader = LineProtocolReader(services.limits, settings.max_reported_errors, unit_ns, time.time_ns())
        with Body(self._headers, self._request.receive, settings, services.bodies) as body:
            if body.is_announced_within(PIECE_BYTES):
                text = await body.whole()
                self._keyed.feed(text)
                self._reader.feed(text)
                self._reader.finish()
                return await self._store_whole(self._reader.take())
            parts = read_line_protocol(self._pieces(body), self._reader, settings.batch_part_bytes)
            first = await anext(parts)
            second = await anext(parts, None)
            if second is None:
                return await self._store_whole(first)
            return await self._store_parts(body, first, second, parts)

    async def _pieces(self, body: Body) -> AsyncIterator[bytes]:
        async for piece in body.pieces():
            self._keyed.feed(piece)
            yield piece

    async def _store_whole(self, batch: Batch) -> Response:
        if self._refuse_nothing and self._reader.is_empty:
            raise BadRequestError("writing requires points")
        if not batch.logs:
            return answer(self._dialect, self._told(BatchResult([], batch.rejected, batch.faults)))
        if len(batch.logs) == 1 and not batch.rejected:
            return await self._store_one(batch)
        key = self._key()
        if key is None:
            result = await self._services.batches.store(batch, self._user.username, skip_bad=True)
            return answer(self._dialect, self._told(result))
        return self._answer_once(
            await self._services.batches.store_once(batch, self._user.username, key, self._told, skip_bad=True), key
        )

    async def _store_one(self, batch: Batch) -> Response:
        """A single point shares its commit with those of other clients."""
        key = None if self._header is None else self._keyed.key()
        try:
            stored = await self._services.group_commit.store(batch.logs[0], self._user.username, key)
        except BadRequestError as error:
            faults = [FieldError(fault.field, fault.message, batch.places[0]) for fault in error.errors]
            return answer(self._dialect, self._told(BatchResult([], 1, faults)))
        return self._answer_once(stored if isinstance(stored, FirstAnswer) else b"", key)

    async def _store_parts(self, body: Body, first: Batch, second: Batch, rest: AsyncIterator[Batch]) -> Response:
        async def all_parts() -> AsyncIterator[Batch]:
            yield first
            body.release()
            yield second
            async for part in rest:
                yield part
                body.release()

        result = await self._services.batches.store_stream(
            all_parts(), self._user.username, self._key, self._told, skip_bad=True
        )
        return self._answer_once(result, self._key())

    def _key(self) -> WriteKey | None:
        """The caller's key, or the one that a retry of the same points would have too."""
        key = self._keyed.key()
        if self._header is not None:
            return key
        return retry_key(key) if self._reader.all_timed else None

    def _told(self, result: BatchResult) -> bytes:
        if not result.rejected:
            return b""
        metrics.LEFT_OUT.labels("influx").inc(result.rejected)
        return self._dialect.rejected(Rejected(result.rejected, result.faults, len(result.ids)))

    def _answer_once(self, result: bytes | FirstAnswer, key: WriteKey | None) -> Response:
        if isinstance(result, bytes):
            return answer(self._dialect, result)
        assert key is not None  # noqa: S101 - only a key has a first answer
        check_same(key, result.fingerprint)
        return answer(self._dialect, result.answer or b"", replayed=True)


@router.head("/ping", status_code=204, include_in_schema=False)
@router.get("/ping", status_code=204, **PING)
async def ping(request: Request) -> Response:
    """Whether the service answers; `?verbose=true` gives the version as JSON too."""
    if parameters(request).get("verbose") in (None, "", "0", "false"):
        return Response(status_code=204, headers=VERSION_HEADERS)
    return json_answer({"version": EMULATED_VERSION}, headers=VERSION_HEADERS)


@router.get("/health", **HEALTH)
async def health(services: ServicesDep) -> Response:
    """Whether points can be stored."""
    body = {"name": "influxdb", "version": EMULATED_VERSION, "checks": []}
    try:
        await services.database.ping()
    except FactoryLogsError as error:
        return json_answer(body | {"message": error.message, "status": "fail"}, 503, VERSION_HEADERS)
    return json_answer(body | {"message": "ready for queries and writes", "status": "pass"}, headers=VERSION_HEADERS)


@router.post("/query", operation_id="query_by_post", **QUERY)
@router.get("/query", operation_id="query_by_get", **QUERY)
async def query(request: Request, services: ServicesDep) -> Response:
    """The two statements that a writer sends when it connects; logs are read at `/v1/factory_logs`."""
    try:
        asked = parameters(request)
        await writer(request, services, asked)
        statement = asked.get("q") or await _form_field(request, services, "q")
        if not statement:
            raise BadRequestError('missing required parameter "q"')
        return json_answer({"results": [{"statement_id": 0} | _result(statement)]}, headers=VERSION_HEADERS)
    except FactoryLogsError as error:
        return error_answer(_VERSION_1, error)


async def _form_field(request: Request, services: Services, name: str) -> str:
    headers = dict(request.scope["headers"])
    with Body(headers, request.receive, services.settings, services.bodies) as body:
        text = (await body.whole()).decode("latin-1")
    try:
        return dict(parse_qsl(text, max_num_fields=10)).get(name, "")
    except ValueError:
        return ""


def _result(statement: str) -> dict[str, object]:
    if _CREATE_DATABASE.fullmatch(statement):
        return {}
    if _SHOW_DATABASES.fullmatch(statement):
        return {"series": [{"name": "databases", "columns": ["name"], "values": [[DATABASE]]}]}
    raise BadRequestError(
        "InfluxQL is not spoken here but for CREATE DATABASE and SHOW DATABASES; read logs by GET /v1/factory_logs"
    )

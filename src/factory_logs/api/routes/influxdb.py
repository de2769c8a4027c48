"""InfluxDB's calls for writing: `POST /write` (1.x), `POST /api/v2/write` (2.x), and the other calls that these clients
send (docs/reference/http-api.md#influxdbs-calls).

A line is a log. Both versions store the valid lines of a write and report the invalid ones. The lines of one request
are stored in one transaction, so a 5xx means that none of them is stored.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Scope

from factory_logs import metrics
from factory_logs.api.asgi.fast_routes import FastRoute
from factory_logs.api.asgi.single_writes import Head, ReadBody, SingleWrite, single_write
from factory_logs.api.dependencies import ServicesDep, authorization
from factory_logs.api.http.error_handlers import error_headers
from factory_logs.api.http.request_body import Body
from factory_logs.api.http.responses import REPLAYED, JsonResponse, NoContentResponse, json_response, route_path
from factory_logs.api.openapi.influxdb_calls import HEALTH, PING, WRITE_1, WRITE_2
from factory_logs.api.services import Services
from factory_logs.errors import (
    HTTP_STATUS,
    BadRequestError,
    FactoryLogsError,
    FieldError,
    NotFoundError,
)
from factory_logs.influxdb.line_reader import LineProtocolReader, read_only_line
from factory_logs.influxdb.requests import authenticate, parse_parameters, time_unit
from factory_logs.influxdb.responses import (
    EMULATED_VERSION,
    VERSION_HEADERS,
    Dialect,
    RejectedLines,
    Version1,
    Version2,
    error_header,
    error_message,
)
from factory_logs.ingest.batch_collector import Batch, read_parts
from factory_logs.ingest.batch_writer import BatchResult, WriteResponse
from factory_logs.ingest.idempotency import REFUSALS, KeyedBody, WriteKey, key_of, retry_key
from factory_logs.permissions import CurrentUser, Level, check_permission

router = APIRouter(tags=["InfluxDB"])
writes = APIRouter(tags=["InfluxDB"], route_class=FastRoute)
_VERSION_1, _VERSION_2 = Version1(), Version2()
_RAW_HEADERS = [(name.lower().encode(), value.encode()) for name, value in VERSION_HEADERS.items()]
_RAW_REPLAYED_HEADERS = _RAW_HEADERS + [(name.lower().encode(), value.encode()) for name, value in REPLAYED.items()]


def _read_head(dialect: Dialect, destination: Callable[[Mapping[str, str]], str], head: Head) -> ReadBody | None:
    """Return the function that reads a single line, if the head is that of an ordinary request."""
    parameters = parse_parameters(head.scope["query_string"])
    if parameters.get("p"):  # it may be the token of another user
        return None
    unit = time_unit(parameters)
    route = _route_of_keys(head.scope, unit, destination(parameters))
    key_header = head.headers.get(b"idempotency-key")
    refuse = partial(_refuse_point, dialect)

    def read_body(body: bytearray, user: CurrentUser, services: Services) -> SingleWrite | None:
        log = read_only_line(body, services.limits, unit, time.time_ns())
        if log is None:
            return None
        return SingleWrite(log, _no_content, refuse, key_of(key_header, user.user_id, route, body))

    return read_body


def _route_of_keys(scope: Scope, unit: int, destination: str) -> str:
    """Return the route that a key covers: the same points for another destination are a new request, not a retry."""
    return f"{route_path(scope)} {unit} {destination}"


def _no_content(_: object) -> Response:
    return NoContentResponse(_RAW_HEADERS)


def _refuse_point(dialect: Dialect, _: Request, error: FactoryLogsError) -> Response:
    """Return the response to a request with one line that was not stored."""
    if isinstance(error, BadRequestError):
        return _response(dialect, WriteResponse(_body(dialect, _one_rejected(error, position=1))))
    return error_response(dialect, error)


@writes.post("/write", status_code=204, **WRITE_1)
@single_write(lambda head: _read_head(_VERSION_1, _database, head))
async def write(request: Request, services: ServicesDep) -> Response:
    """Store points in line protocol, as InfluxDB 1.x does. 204 means that PostgreSQL has flushed all of them to
    disk."""
    return await _store_points(request, services, _VERSION_1, _database)


@writes.post("/api/v2/write", status_code=204, **WRITE_2)
@single_write(lambda head: _read_head(_VERSION_2, _bucket, head))
async def write_v2(request: Request, services: ServicesDep) -> Response:
    """Store points in line protocol, as InfluxDB 2.x does. 204 means that PostgreSQL has flushed all of them to
    disk."""
    return await _store_points(request, services, _VERSION_2, _bucket, refuse_empty=True)


def _database(parameters: Mapping[str, str]) -> str:
    """Return the database and retention policy of a write. Raises BadRequestError if the database is missing."""
    if not parameters.get("db"):
        raise BadRequestError("database is required")
    return f"{parameters['db']!r} {parameters.get('rp', '')!r}"


def _bucket(parameters: Mapping[str, str]) -> str:
    """Return the bucket and organisation of a write. Raises NotFoundError if the bucket is missing."""
    if not parameters.get("bucket"):
        raise NotFoundError("bucket not found: add ?bucket= with any name")
    return f"{parameters['bucket']!r} {parameters.get('org') or parameters.get('orgID', '')!r}"


async def _store_points(
    request: Request,
    services: Services,
    dialect: Dialect,
    destination: Callable[[Mapping[str, str]], str],
    *,
    refuse_empty: bool = False,
) -> Response:
    """Store the points of a request."""
    try:
        parameters = parse_parameters(request.scope["query_string"])
        user = await authenticated(request, services, parameters, stores_logs=True)
        named = destination(parameters)
        unit = time_unit(parameters)
        route = _route_of_keys(request.scope, unit, named)
        return await _Write(request, services, user, dialect, route, refuse_empty=refuse_empty).store(unit)
    except FactoryLogsError as error:
        return error_response(dialect, error)


async def authenticated(
    request: Request,
    services: Services,
    parameters: Mapping[str, str],
    *,
    level: Level = Level.SYSTEM,
    stores_logs: bool = False,
) -> CurrentUser:
    """Return the user of a request. Raises UnauthenticatedError, ForbiddenError."""
    user = await authenticate(services.authenticator, authorization(request.scope), parameters)
    request.scope["state"]["user"] = user.username
    check_permission(user, level, stores_logs=stores_logs)
    return user


class _Write:
    """One write request, from its body to its response."""

    def __init__(
        self,
        request: Request,
        services: Services,
        user: CurrentUser,
        dialect: Dialect,
        route: str,
        *,
        refuse_empty: bool = False,
    ) -> None:
        """Read the parameters of the request. Raises BadRequestError for an invalid Idempotency-Key."""
        self._request = request
        self._services = services
        self._user = user
        self._dialect = dialect
        self._refuse_empty = refuse_empty
        self._headers = dict(request.scope["headers"])
        header = self._headers.get(b"idempotency-key")
        self._has_key = header is not None
        self._keyed = KeyedBody(user.user_id, b"-" if header is None else header, route)

    async def store(self, unit_ns: int) -> Response:
        """Store the valid lines. Raises a FactoryLogsError if none was stored."""
        services, settings = self._services, self._services.settings
        self._reader = LineProtocolReader(services.limits, services.batch_limits, unit_ns, time.time_ns())
        with Body(self._headers, self._request.receive, settings, services.bodies) as body:
            if body.is_announced_within(self._reader.piece_bytes):
                text = await body.read()
                self._keyed.feed(text)
                try:
                    self._reader.read(text)
                    return await self._store_batch(self._reader.take())
                except REFUSALS as error:
                    return await self._first_response(error)
            size = await body.spool()
            texts = body.parts(settings.batch_part_bytes, self._keyed)
            parts = read_parts(texts, self._reader)
            try:
                if size <= settings.batch_part_bytes:
                    return await self._store_batch(await anext(parts))
                result = await services.batches.store_stream(
                    parts, self._user.username, self._key, self._body, skip_bad=True, needs_ids=False
                )
                return self._response(result)
            except REFUSALS as error:
                async for _ in texts:
                    pass  # the key covers the whole body
                return await self._first_response(error)

    async def _first_response(self, error: FactoryLogsError) -> Response:
        """Return the response to the first write with the client's key. Raise `error` if there is none."""
        return self._response(await self._services.batches.first_response(self._client_key(), error))

    async def _store_batch(self, batch: Batch) -> Response:
        if self._refuse_empty and self._reader.is_empty:
            raise BadRequestError("writing requires points")
        if not batch.logs:
            return await self._rejected(BatchResult(0, [], batch.rejected, batch.errors))
        if len(batch.logs) == 1 and not batch.rejected:
            return await self._store_one(batch)
        key = self._key()
        result = await self._services.batches.store(
            batch, self._user.username, key, self._body, skip_bad=True, needs_ids=False
        )
        return self._response(result)

    async def _store_one(self, batch: Batch) -> Response:
        """Store a single point, in a commit that it shares with points of other clients."""
        try:
            stored = await self._services.single_logs.store_point(
                batch.logs[0], self._user.username, self._client_key()
            )
        except BadRequestError as error:
            return await self._rejected(_one_rejected(error, batch.positions[0]))
        return self._response(stored)

    async def _rejected(self, result: BatchResult) -> Response:
        """Return a 400 for a body without good lines, or the response to the first write with the client's key."""
        try:
            return await self._first_response(BadRequestError("no line is good"))
        except BadRequestError:
            return self._response(WriteResponse(self._body(result)))

    def _key(self) -> WriteKey | None:
        """Return the client's key, or a key that is derived from the points and is therefore the same for a retry."""
        key = self._client_key()
        if key is None and self._reader.all_timed:
            return retry_key(self._keyed.key())
        return key

    def _client_key(self) -> WriteKey | None:
        return self._keyed.key() if self._has_key else None

    def _body(self, result: BatchResult) -> bytes:
        return _body(self._dialect, result)

    def _response(self, result: WriteResponse) -> Response:
        return _response(self._dialect, result)


def _one_rejected(error: BadRequestError, position: int) -> BatchResult:
    """Return the result of a write whose only point was not stored."""
    return BatchResult(0, [], 1, [FieldError(each.field, each.message, position) for each in error.errors])


def _body(dialect: Dialect, result: BatchResult) -> bytes:
    if not result.rejected:
        return b""
    metrics.LEFT_OUT.labels("influx").inc(result.rejected)
    return dialect.rejected(RejectedLines(result.rejected, result.errors, result.stored))


def _response(dialect: Dialect, result: WriteResponse) -> Response:
    """Return a 204, or a 400 whose body lists the lines that were not stored."""
    if not result.body:
        return NoContentResponse(_RAW_REPLAYED_HEADERS if result.replayed else _RAW_HEADERS)
    headers = VERSION_HEADERS | REPLAYED if result.replayed else VERSION_HEADERS
    return JsonResponse(result.body, 400, headers | error_header(dialect.message(result.body)))


def error_response(dialect: Dialect, error: FactoryLogsError) -> Response:
    """Return an error in the format of this version of InfluxDB."""
    status, message, headers = counted_error(error, dialect.challenge)
    return JsonResponse(dialect.failed(status, message), status, headers)


def counted_error(error: FactoryLogsError, challenge: str) -> tuple[int, str, dict[str, str]]:
    """Count an error in the metrics. Return its status, message and headers for a client of InfluxDB."""
    metrics.REJECTED.labels(type(error).__name__.removesuffix("Error")).inc()
    message = error_message(error)
    headers = VERSION_HEADERS | error_headers(error, challenge) | error_header(message)
    return HTTP_STATUS[type(error)], message, headers


@router.head("/ping", status_code=204, include_in_schema=False)
@router.get("/ping", status_code=204, **PING)
async def ping(request: Request) -> Response:
    """Return 204, or with `?verbose=true` 200 and the version as JSON: the service is running."""
    if parse_parameters(request.scope["query_string"]).get("verbose") in (None, "", "0", "false"):
        return Response(status_code=204, headers=VERSION_HEADERS)
    return json_response({"version": EMULATED_VERSION}, headers=VERSION_HEADERS)


@router.get("/health", **HEALTH)
async def health(services: ServicesDep) -> Response:
    """Return whether the service can store points."""
    body = {"name": "influxdb", "version": EMULATED_VERSION, "checks": []}
    try:
        await services.database.ping()
    except FactoryLogsError as error:
        return json_response(body | {"message": error.message, "status": "fail"}, 503, VERSION_HEADERS)
    return json_response(body | {"message": "ready for queries and writes", "status": "pass"}, headers=VERSION_HEADERS)

"""`GET` and `POST /query`: InfluxQL over the logs, with the responses of InfluxDB 1.x (docs/reference/influxql.md)."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.asgi.fast_routes import FastRoute
from factory_logs.api.dependencies import ServicesDep
from factory_logs.api.http.request_body import Body
from factory_logs.api.http.responses import JsonResponse
from factory_logs.api.http.streaming import StreamResponse, cancel_on_disconnect
from factory_logs.api.openapi.influxdb_calls import QUERY
from factory_logs.api.routes.influxdb import authenticated, counted_error, error_response
from factory_logs.api.services import Services
from factory_logs.errors import BadRequestError, FactoryLogsError, ForbiddenError
from factory_logs.influxdb.query_response import DEFAULT_CHUNK_ROWS, EPOCHS, CsvWriter, JsonWriter, Piece, pieces
from factory_logs.influxdb.requests import MAX_PARAMETERS, parse_parameters
from factory_logs.influxdb.responses import VERSION_HEADERS, Version1, Version2
from factory_logs.influxql.ast import Explain, Refused, Select, Statement
from factory_logs.influxql.bound_parameters import NONE
from factory_logs.influxql.bound_parameters import parse_parameters as parse_bound_parameters
from factory_logs.influxql.errors import InfluxqlError, ParseError
from factory_logs.influxql.expressions import ParserLimits
from factory_logs.influxql.parser import parse_query
from factory_logs.influxql.series import Result
from factory_logs.permissions import Level
from factory_logs.settings import Settings

router = APIRouter(tags=["InfluxDB"], route_class=FastRoute)
Parameters = Mapping[str, str]
Writer = JsonWriter | CsvWriter
FEW_ROWS = 1_000
"""Writing fewer rows than this takes less time than a change of threads."""
_CSV_TYPES = ("application/csv", "text/csv")
FLUX = "application/vnd.flux"
NO_FLUX = "Flux is not supported: send InfluxQL as q to /query, or read logs by GET /v1/factory_logs"


@router.post("/query", operation_id="query_by_post", **QUERY)
@router.get("/query", operation_id="query_by_get", **QUERY)
async def query(request: Request, services: ServicesDep) -> Response:
    """Run InfluxQL statements. If one fails, its result contains the error, and the statements after it are not run."""
    writer: Writer = JsonWriter(None)
    try:
        given = parse_parameters(request.scope["query_string"])
        writer = _writer(request, given)
        await authenticated(request, services, given, level=Level.OVERVIEW)
        parameters = await _parameters(request, services, given)
        writer = _writer(request, parameters)
        return await _Query(request, services, parameters, writer).response()
    except FactoryLogsError as error:
        return _failed(writer, error)


@router.post("/api/v2/query", include_in_schema=False)
async def query_v2() -> Response:
    """Reject the query call of InfluxDB 2.x, which expects Flux."""
    return error_response(Version2(), BadRequestError(NO_FLUX))


def _writer(request: Request, parameters: Parameters) -> Writer:
    epoch = EPOCHS.get(parameters["epoch"], 1) if parameters.get("epoch") else None
    if request.headers.get("accept", "") in _CSV_TYPES:
        return CsvWriter(epoch)
    return JsonWriter(epoch, pretty=parameters.get("pretty") == "true")


def _failed(writer: Writer, error: FactoryLogsError) -> Response:
    """Return an error in the format that the client requested."""
    status, message, headers = counted_error(error, Version1.challenge)
    return _response(writer.error(message), writer.content_type, status, headers)


async def _parameters(request: Request, services: Services, given: Parameters) -> Parameters:
    """Return the parameters of the form in the body and of the query string. The query string takes precedence."""
    if request.method != "POST":
        return given
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    headers = dict(request.scope["headers"])
    with Body(headers, request.receive, services.settings, services.bodies) as body:
        content = await body.read()
    if kind == FLUX:
        raise BadRequestError(NO_FLUX)
    if kind not in ("", "application/x-www-form-urlencoded"):
        return given
    try:
        pairs = parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise BadRequestError(f"there are more than {MAX_PARAMETERS} form fields") from None
    return MappingProxyType(dict(reversed(pairs)) | dict(given))


class _Query:
    """One query request, from its parameters to its response."""

    def __init__(self, request: Request, services: Services, parameters: Parameters, writer: Writer) -> None:
        self._request = request
        self._services = services
        self._parameters = parameters
        self._writer = writer

    async def response(self) -> Response:
        """Run the statements. Raises BadRequestError if they are not InfluxQL, ForbiddenError if one of them writes."""
        statements = self._statements()
        for statement in statements:
            _refuse_writes(statement)
        results = self._services.influxql.results(statements, self._parameters.get("db", ""), time.time_ns())
        if self._parameters.get("chunked") == "true":
            return await self._chunked(results)
        most, found, rows = self._services.settings.max_influxql_rows, list[Result](), 0
        async for result in _until_disconnect(self._request, results):
            found.append(result)
            rows += sum(len(series.rows) for series in result.series)
            if rows > most and len(found) > 1:
                raise BadRequestError(
                    f"the statements together return more than {most} rows: send fewer at a time, or chunked=true"
                )
        written = [Piece(each) for each in found]
        if rows <= FEW_ROWS:
            body = self._writer.document(written)
        else:
            body = await asyncio.to_thread(self._writer.document, written)
        return _response(body, self._writer.content_type, 200, VERSION_HEADERS)

    def _statements(self) -> tuple[Statement, ...]:
        text = self._parameters.get("q", "").strip()
        if not text:
            raise BadRequestError('missing required parameter "q"')
        try:
            bound = self._parameters.get("params")
            parameters = parse_bound_parameters(bound) if bound else NONE
            return parse_query(text, parameters, parser_limits(self._services.settings))
        except ParseError as error:
            raise BadRequestError(f"error parsing query: {error.message}") from None
        except InfluxqlError as error:
            raise BadRequestError(error.message) from None

    async def _chunked(self, results: AsyncIterator[Result]) -> Response:
        rows = self._parameters.get("chunk_size", "")
        size = int(rows[:9]) if rows.isascii() and rows.isdigit() else 0
        parts = self._documents(results, size or DEFAULT_CHUNK_ROWS)
        first = await cancel_on_disconnect(self._request.receive, anext(parts, b""))
        settings = self._services.settings
        return StreamResponse(first, parts, self._writer.content_type, settings.export_send_seconds, VERSION_HEADERS)

    async def _documents(self, results: AsyncIterator[Result], rows: int) -> AsyncGenerator[bytes]:
        async for result in results:
            for piece in pieces(result, rows):
                yield self._writer.document([piece])
                await asyncio.sleep(0)


async def _until_disconnect(request: Request, results: AsyncIterator[Result]) -> AsyncIterator[Result]:
    """Yield the results until the client disconnects."""
    end = Result(-1)
    while (result := await cancel_on_disconnect(request.receive, anext(results, end))) is not end:
        yield result


def parser_limits(settings: Settings) -> ParserLimits:
    """Return the limits of the InfluxQL parser."""
    return ParserLimits(
        settings.max_influxql_characters,
        settings.max_influxql_statements,
        settings.max_influxql_depth,
        settings.max_influxql_nodes,
    )


def _refuse_writes(statement: Statement) -> None:
    match statement:
        case Refused(name):
            pass
        case Select(into=target) | Explain(Select(into=target)) if target is not None:
            name = "SELECT INTO"
        case _:
            return
    raise ForbiddenError(
        f"error authorizing query: not authorized to execute statement '{name}': Factory Logs only reads by InfluxQL"
    )


def _response(body: bytes, content_type: str, status: int, headers: Mapping[str, str]) -> Response:
    if content_type == "application/json":
        return JsonResponse(body, status, headers)
    return Response(body, status, headers, media_type=content_type)

"""Responses with aggregates: JSON, or CSV if `Accept` asks for it."""

import csv
import io
from collections.abc import Awaitable
from typing import Any

import orjson
from fastapi import Request
from starlette.responses import Response

from factory_logs.api.http.content_coding import compressed, preferred
from factory_logs.api.http.query_responses import asks_to_escape_formulas
from factory_logs.api.http.responses import CsvResponse
from factory_logs.api.http.streaming import cancel_on_disconnect
from factory_logs.api.services import Services
from factory_logs.errors import QueryTooLongError
from factory_logs.querier.aggregates import AggregateResult
from factory_logs.query import FACTORY_LOGS, Query, index_advice_for
from factory_logs.schemas.formulas import escaped_formula
from factory_logs.settings import Settings

CSV = "text/csv"
_OFFERED = ("application/json", "application/*", "*/*", CSV)


async def result_response(
    request: Request, services: Services, query: Query, reading: Awaitable[AggregateResult]
) -> Response:
    """Return the result of an aggregate over the logs of `query`, in the format that the client prefers.

    If the query takes too long, the error says how to narrow it.
    """
    try:
        result = await cancel_on_disconnect(request.receive, reading)
    except QueryTooLongError as error:
        raise error.with_advice(index_advice_for(query, FACTORY_LOGS)) from error
    return await formatted_response(request, result, services.settings)


async def formatted_response(request: Request, result: AggregateResult, settings: Settings) -> Response:
    """Return the result as JSON or CSV, depending on what the client prefers."""
    if preferred(request.headers.get("accept", ""), _OFFERED) == CSV:
        return await compressed(
            request,
            csv_table(result, escape_formulas=asks_to_escape_formulas(request)).encode(),
            settings,
            kind=CsvResponse,
        )
    return await compressed(request, orjson.dumps(result.body), settings)


def csv_table(result: AggregateResult, *, escape_formulas: bool = False) -> str:
    """Return the rows as CSV, with a header line. Null is an empty cell; lists and objects are JSON.

    With `escape_formulas`, text that a spreadsheet would run as a formula gets a leading apostrophe.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows([_cell(row.get(column), escape_formulas) for column in result.columns] for row in result.rows)
    return table.getvalue()


def _cell(value: Any, escape_formulas: bool) -> str:
    text = orjson.dumps(value)
    if text == b"null":
        return ""
    if not text.startswith(b'"'):
        return text.decode()
    cell = str(orjson.loads(text))
    return escaped_formula(cell) if escape_formulas else cell

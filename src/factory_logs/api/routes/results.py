"""API calls for test results: yield, failures, distribution, facets, the catalog, and the history of a unit
(docs/reference/test-results.md)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.asgi.fast_routes import FastRoute
from factory_logs.api.dependencies import Reader, ServicesDep
from factory_logs.api.http.aggregate_responses import formatted_response, result_response
from factory_logs.api.http.streaming import cancel_on_disconnect
from factory_logs.api.openapi import aggregate_calls as openapi
from factory_logs.errors import NotFoundError
from factory_logs.querier.catalog import read_catalog
from factory_logs.querier.results import read_distribution, read_facets, read_failures, read_unit, read_yield
from factory_logs.query import (
    FACTORY_LOGS,
    Query,
    parse_distribution,
    parse_facets,
    parse_failures,
    parse_yield,
)
from factory_logs.query.parameters import Parameters
from factory_logs.schemas.results import Catalog, Distributions, Facets, Failures, Unit, Yields

router = APIRouter(prefix="/v1", tags=["test results"], route_class=FastRoute)


@router.get(
    "/factory_logs/yield",
    **openapi.route_options(
        Yields, openapi.YIELD, openapi.QUERY, openapi.BUCKET, openapi.BY, openapi.UNIT_FIELD, openapi.PASSED_PATH,
        openapi.ZONE_NAME,
    ),
)  # fmt: skip
async def get_yield(request: Request, _: Reader, services: ServicesDep) -> Response:
    """Count the attempts and units that pass, by time bucket and by any field.

    An attempt is a log with a boolean at `passed`. Units are counted for each app, because each app is a different
    test. A pair of unit and app belongs to the bucket and group of its first attempt among the logs that `q` selects.
    """
    settings = services.settings
    parameters = parse_yield(
        request.query_params.multi_items(), FACTORY_LOGS, services.query_limits, settings.max_stats_fields
    )
    reading = read_yield(services.sums, parameters, settings.max_stats_rows)
    return await result_response(request, services, parameters.query, reading)


@router.get(
    "/factory_logs/failures",
    **openapi.route_options(
        Failures, openapi.FAILURES, openapi.QUERY, openapi.PASSED_PATH, openapi.UNIT_FIELD, openapi.FAILURES_LIMIT
    ),
)
async def get_failures(request: Request, _: Reader, services: ServicesDep) -> Response:
    """Count the failed measurements of failed attempts, the most frequent first. These are the rows of a Pareto chart.

    A measurement has failed if an object under `fields` has `pass` or `passed` false, or if any boolean under `fields`
    other than the one at `passed` is false. An attempt without a failed measurement counts under null.
    """
    settings = services.settings
    parameters = parse_failures(
        request.query_params.multi_items(), FACTORY_LOGS, services.query_limits, settings.max_stats_rows
    )
    return await result_response(
        request, services, parameters.query, read_failures(services.sums, parameters, settings.max_stats_rows)
    )


@router.get(
    "/factory_logs/distribution",
    **openapi.route_options(
        Distributions, openapi.DISTRIBUTION, openapi.QUERY, openapi.NUMBER_FIELD, openapi.BINS, openapi.BY,
        openapi.LOWER, openapi.UPPER,
    ),
)  # fmt: skip
async def get_distribution(request: Request, _: Reader, services: ServicesDep) -> Response:
    """Return the distribution of the numbers at `field`, by any field: percentiles, a histogram, and, with `lower` or
    `upper`, the process capability."""
    settings = services.settings
    parameters = parse_distribution(
        request.query_params.multi_items(), FACTORY_LOGS, services.query_limits, settings.max_stats_fields
    )
    reading = read_distribution(services.aggregates, parameters, settings.max_stats_rows)
    return await result_response(request, services, parameters.query, reading)


@router.get(
    "/factory_logs/facets",
    **openapi.route_options(Facets, openapi.FACETS, openapi.QUERY, openapi.FACET_FIELDS, openapi.VALUES_LIMIT),
)
async def get_facets(request: Request, _: Reader, services: ServicesDep) -> Response:
    """Return the most frequent values of fields, and the number of logs with each value."""
    settings = services.settings
    parameters = parse_facets(
        request.query_params.multi_items(),
        FACTORY_LOGS,
        services.query_limits,
        settings.max_stats_fields,
        settings.max_facet_values,
    )
    return await result_response(
        request, services, parameters.query, read_facets(services.sums, parameters, settings.max_known_rows)
    )


@router.get("/factory_logs/catalog", **openapi.route_options(Catalog, openapi.CATALOG))
async def get_catalog(request: Request, _: Reader, services: ServicesDep) -> Response:
    """List the apps, and the JSON paths of scalars and arrays in their `tags` and `fields`, with the JSON types.

    The only parameter is `escape_formulas`, for CSV.
    """
    Parameters(request.query_params.multi_items(), (), FACTORY_LOGS).check()
    reading = read_catalog(services.sums, services.settings.max_catalog_paths)
    return await result_response(request, services, Query(), reading)


@router.get("/units/{product_imei}", **openapi.route_options(Unit, openapi.UNIT, statuses=(404,)))
async def get_unit(request: Request, product_imei: str, _: Reader, services: ServicesDep) -> Response:
    """Return the history of one unit: the logs of each app, and its repairs."""
    Parameters(request.query_params.multi_items(), (), FACTORY_LOGS).check()
    result = await cancel_on_disconnect(request.receive, read_unit(services.aggregates, product_imei))
    if result is None:
        raise NotFoundError(f"There are no logs and no repairs of a unit {product_imei[:50]}")
    return await formatted_response(request, result, services.settings)

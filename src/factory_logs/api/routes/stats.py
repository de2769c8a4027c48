"""`GET /v1/factory_logs/stats`: aggregates for plots (docs/reference/http-api.md#stats)."""

from fastapi import APIRouter, Request
from starlette.responses import Response

from factory_logs.api.asgi.fast_routes import FastRoute
from factory_logs.api.dependencies import Reader, ServicesDep
from factory_logs.api.http.aggregate_responses import result_response
from factory_logs.api.openapi import aggregate_calls as openapi
from factory_logs.querier.stats import read_stats
from factory_logs.query import FACTORY_LOGS, parse_stats
from factory_logs.schemas.results import StatsResult

router = APIRouter(prefix="/v1/factory_logs", tags=["factory logs"], route_class=FastRoute)


@router.get(
    "/stats",
    **openapi.route_options(
        StatsResult, openapi.STATS, openapi.QUERY, openapi.BUCKET, openapi.BY, openapi.NUMBERS, openapi.ZONE_NAME
    ),
)
async def get_stats(request: Request, _: Reader, services: ServicesDep) -> Response:
    """Count the logs that `q` selects, and summarise their measurements, by time bucket and by any field.

    `q` may contain `filters` only. Each `field` has count, min, avg, max, p50 and p95 over the logs whose value is a
    number or boolean. False counts as 0 and true as 1, so the average of a boolean is a rate. Other values are ignored.
    Percentiles use the nearest rank.
    """
    settings = services.settings
    pairs = request.query_params.multi_items()
    stats = parse_stats(pairs, FACTORY_LOGS, services.query_limits, settings.max_stats_fields)
    return await result_response(
        request, services, stats.query, read_stats(services.sums, services.aggregates, stats, settings.max_stats_rows)
    )

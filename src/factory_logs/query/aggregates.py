"""Parse the parameters of the calls that aggregate logs: stats (docs/reference/http-api.md#stats), and yield,
failures, distribution and facets (docs/reference/test-results.md)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from factory_logs.query.ast import Field, Query
from factory_logs.query.fields import Resource
from factory_logs.query.parameters import Bucket, Parameters
from factory_logs.query.parser import QueryLimits

Pairs = Iterable[tuple[str, str]]

YIELD_PARAMETERS = ("q", "bucket", "by", "unit", "passed", "tz")
FAILURES_PARAMETERS = ("q", "passed", "unit", "limit")
DISTRIBUTION_PARAMETERS = ("q", "field", "bins", "by", "lower", "upper")
FACETS_PARAMETERS = ("q", "field", "limit")
DEFAULT_BINS, MAX_BINS = 20, 200
DEFAULT_FAILURES = 100
DEFAULT_FACET_VALUES = 10


@dataclass(frozen=True, slots=True)
class YieldQuery:
    """The parameters of a yield: attempts and units among the logs of `query.filters`, by time bucket and the fields
    `by`."""

    query: Query
    bucket: Bucket | None
    by: Mapping[str, Field]
    unit: Field
    passed: Field


@dataclass(frozen=True, slots=True)
class FailuresQuery:
    """The parameters of failures: the `limit` most frequent failures among the failed attempts of `query.filters`."""

    query: Query
    unit: Field
    passed: Field
    limit: int


@dataclass(frozen=True, slots=True)
class DistributionQuery:
    """The parameters of a distribution: the numbers at `field` in the logs of `query.filters`, by the fields `by`.

    `lower` and `upper` are the exact limits of a good value.
    """

    query: Query
    field: Field
    bins: int
    by: Mapping[str, Field]
    lower: Decimal | None
    upper: Decimal | None


@dataclass(frozen=True, slots=True)
class FacetsQuery:
    """The parameters of facets: the `limit` most frequent values of each field in `fields` in the logs of
    `query.filters`."""

    query: Query
    fields: Mapping[str, Field]
    limit: int


def parse_yield(pairs: Pairs, resource: Resource, limits: QueryLimits, max_fields: int) -> YieldQuery:
    """Return the parameters of a yield. Like the other functions here, raises BadRequestError that lists every
    error."""
    parameters = Parameters(pairs, YIELD_PARAMETERS, resource)
    query = parameters.query(limits)
    parameters.limit_names(max_fields, "by")
    yield_query = YieldQuery(
        query, parameters.bucket(), parameters.fields("by"), parameters.unit(), parameters.passed()
    )
    parameters.check()
    return yield_query


def parse_failures(pairs: Pairs, resource: Resource, limits: QueryLimits, max_rows: int) -> FailuresQuery:
    parameters = Parameters(pairs, FAILURES_PARAMETERS, resource)
    limit = parameters.integer("limit", min(DEFAULT_FAILURES, max_rows), max_rows)
    failures_query = FailuresQuery(parameters.query(limits), parameters.unit(), parameters.passed(), limit)
    parameters.check()
    return failures_query


def parse_distribution(pairs: Pairs, resource: Resource, limits: QueryLimits, max_fields: int) -> DistributionQuery:
    parameters = Parameters(pairs, DISTRIBUTION_PARAMETERS, resource)
    query = parameters.query(limits)
    parameters.limit_names(max_fields, "by")
    fields, by = parameters.numbers("field"), parameters.fields("by")
    bins = parameters.integer("bins", DEFAULT_BINS, MAX_BINS)
    lower, upper = parameters.number("lower"), parameters.number("upper")
    if parameters.given("field") != 1:
        parameters.refuse("field", "expected exactly one number or JSON path, such as fields__voltage")
    if lower is not None and upper is not None and lower > upper:
        parameters.refuse("upper", "upper must not be below lower")
    parameters.check()
    return DistributionQuery(query, next(iter(fields.values())), bins, by, lower, upper)


def parse_facets(
    pairs: Pairs, resource: Resource, limits: QueryLimits, max_fields: int, max_values: int
) -> FacetsQuery:
    parameters = Parameters(pairs, FACETS_PARAMETERS, resource)
    query = parameters.query(limits)
    parameters.limit_names(max_fields, "field")
    fields = parameters.fields("field")
    limit = parameters.integer("limit", min(DEFAULT_FACET_VALUES, max_values), max_values)
    if not parameters.given("field"):
        parameters.refuse("field", "expected at least one field or JSON path, such as app_name or tags__jig_id")
    parameters.check()
    return FacetsQuery(query, fields, limit)


STATS_PARAMETERS = ("q", "bucket", "by", "field", "tz")
MEASURES = ("count", "min", "avg", "max", "p50", "p95")


@dataclass(frozen=True, slots=True)
class StatsQuery:
    """The parameters of stats: the logs of `query.filters` by time bucket (None means one bucket for all time) and the
    fields `by`.

    Each group has its count and the measures of each field in `fields`. `by` and `fields` are dicts by name.
    """

    query: Query
    bucket: Bucket | None
    by: Mapping[str, Field]
    fields: Mapping[str, Field]


def parse_stats(
    pairs: Iterable[tuple[str, str]], resource: Resource, limits: QueryLimits, max_fields: int
) -> StatsQuery:
    """Return the parameters of stats. Raises BadRequestError that lists every error."""
    parameters = Parameters(pairs, STATS_PARAMETERS, resource)
    query = parameters.query(limits)
    parameters.limit_names(max_fields, "by", "field")
    stats = StatsQuery(query, parameters.bucket(), parameters.fields("by"), parameters.numbers("field"))
    parameters.check()
    return stats

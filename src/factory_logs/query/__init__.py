"""The query language `q` (docs/reference/http-api.md#the-query-language-q), independent of the web framework. It parses
text to a Query, which is a typed syntax tree, and compiles the Query to SQLAlchemy Core."""

from factory_logs.query.ast import Compare, Field, Kind, Query
from factory_logs.query.compiler import compile_count, compile_filters, compile_rows, field_number, field_value
from factory_logs.query.fields import FACTORY_LOGS, REPAIRS, Resource
from factory_logs.query.index_advice import index_advice_for
from factory_logs.query.keyset import compile_after, compile_keys, has_indexed_order
from factory_logs.query.operators import Operator
from factory_logs.query.parameters import (
    DURATION,
    MEASURES,
    Bucket,
    DistributionQuery,
    FacetsQuery,
    FailuresQuery,
    StatsQuery,
    YieldQuery,
    parse_distribution,
    parse_facets,
    parse_failures,
    parse_stats,
    parse_yield,
)
from factory_logs.query.parser import LARGEST_COUNT, QueryLimits, parse_query
from factory_logs.query.rewriting import with_placeholders

__all__ = [
    "DURATION",
    "FACTORY_LOGS",
    "LARGEST_COUNT",
    "MEASURES",
    "REPAIRS",
    "Bucket",
    "Compare",
    "DistributionQuery",
    "FacetsQuery",
    "FailuresQuery",
    "Field",
    "Kind",
    "Operator",
    "Query",
    "QueryLimits",
    "Resource",
    "StatsQuery",
    "YieldQuery",
    "compile_after",
    "compile_count",
    "compile_filters",
    "compile_keys",
    "compile_rows",
    "field_number",
    "field_value",
    "has_indexed_order",
    "index_advice_for",
    "parse_distribution",
    "parse_facets",
    "parse_failures",
    "parse_query",
    "parse_stats",
    "parse_yield",
    "with_placeholders",
]

"""The `q` language (SPEC 4, 5), usable without the web: text -> Query (typed AST) -> SQLAlchemy Core."""

from factory_logs.query.ast import Compare, Field, Kind, Query
from factory_logs.query.compiler import compile_count, compile_filters, compile_rows
from factory_logs.query.fields import FACTORY_LOGS, REPAIRS, Resource
from factory_logs.query.narrowing import what_to_narrow
from factory_logs.query.operators import Operator
from factory_logs.query.parser import LARGEST_COUNT, Limits, parse_query
from factory_logs.query.shapes import shape_of
from factory_logs.query.stats import DURATION, MEASURES, Stats, compile_stats, parse_stats
from factory_logs.query.walking import compile_after, compile_keys

__all__ = [
    "DURATION",
    "FACTORY_LOGS",
    "LARGEST_COUNT",
    "MEASURES",
    "REPAIRS",
    "Compare",
    "Field",
    "Kind",
    "Limits",
    "Operator",
    "Query",
    "Resource",
    "Stats",
    "compile_after",
    "compile_count",
    "compile_filters",
    "compile_keys",
    "compile_rows",
    "compile_stats",
    "parse_query",
    "parse_stats",
    "shape_of",
    "what_to_narrow",
]

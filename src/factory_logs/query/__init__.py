"""The `q` language (SPEC 4, 5), usable without the web: text -> Query (typed AST) -> SQLAlchemy Core."""

from factory_logs.query.ast import Query
from factory_logs.query.compiler import compile_count, compile_filters, compile_rows
from factory_logs.query.fields import FACTORY_LOGS, REPAIRS, Resource
from factory_logs.query.parser import Limits, parse_query

__all__ = [
    "FACTORY_LOGS",
    "REPAIRS",
    "Limits",
    "Query",
    "Resource",
    "compile_count",
    "compile_filters",
    "compile_rows",
    "parse_query",
]

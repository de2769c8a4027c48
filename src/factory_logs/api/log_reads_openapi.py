"""What the OpenAPI document says of reads that parse their own query string (SPEC 4, 6)."""

from typing import Any

Q: dict[str, Any] = {"name": "q", "in": "query", "required": False}
"""Described by api/query_schema.py."""

_PAGE: dict[str, Any] = {
    "name": "page",
    "in": "query",
    "required": False,
    "description": "From 1; past the end `objects` is empty",
    "schema": {"type": "string", "pattern": "^[1-9][0-9]{0,8}$", "examples": ["1"]},
}
_RESULTS_PER_PAGE: dict[str, Any] = {
    "name": "results_per_page",
    "in": "query",
    "required": False,
    "description": "Default 10, at most 100",
    "schema": {"type": "string", "examples": ["10"]},
}
PAGING: dict[str, Any] = {"parameters": [Q, _PAGE, _RESULTS_PER_PAGE]}
"""The `openapi_extra` of a route that answers with pages."""

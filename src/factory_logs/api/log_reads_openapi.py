"""What the OpenAPI document says of reads that parse their own query string (SPEC 4, 6)."""

from typing import Any

Q: dict[str, Any] = {"name": "q", "in": "query", "required": False}
"""Described by api/query_schema.py."""

EXPORTS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "All that `q` selects, one record a line"}
            },
            "text/csv": {"schema": {"type": "string", "description": "The same, after a line of column names"}},
        }
    }
}
"""By `Accept`: the `responses` of a route that answers with pages. An export that is broken off has no clean end."""

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
_CURSOR: dict[str, Any] = {
    "name": "cursor",
    "in": "query",
    "required": False,
    "description": 'Empty, it begins a walk through all that `q` selects; `Link: <...>; rel="next"` carries it on, '
    "each page at the same cost. Instead of `page`; not with `group_by` or `single`",
    "schema": {"type": "string", "maxLength": 0, "examples": [""]},
}
PAGING: dict[str, Any] = {"parameters": [Q, _PAGE, _RESULTS_PER_PAGE, _CURSOR]}
"""The `openapi_extra` of a route that answers with pages."""

_CACHING: dict[str, Any] = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in (
        ("ETag", "Of exactly these bytes"),
        ("Cache-Control", "How long a client may show it again: it never changes"),
        ("Vary", "Kept for the caller's own token alone"),
    )
}
CACHED: dict[int | str, dict[str, Any]] = {
    200: {"headers": _CACHING},
    304: {"description": "The caller has it already, by its `If-None-Match`", "headers": _CACHING},
}
"""The `responses` of a route that answers with what never changes."""

IF_NONE_MATCH: dict[str, Any] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "description": "The `ETag` of what the caller has: a 304 without a body says that it is the same",
    "schema": {"type": "string", "examples": ['"8876ce82a6a1c71203d59d9f"']},
}

"""The parameter `q` of the OpenAPI document: its description, its examples, and its grammar as JSON Schema
(docs/reference/http-api.md#the-query-language-q).

The grammar is derived from the tables of the parser, so both agree: names come from `query.fields`, operators from
`query.operators`. The parser also rejects errors that a schema cannot express, such as filters that nest too deep.
"""

from collections.abc import Iterable
from typing import Any

from factory_logs.query.ast import Kind
from factory_logs.query.fields import SEPARATOR, Resource
from factory_logs.query.operators import (
    COMPARISONS,
    EQUALITIES,
    MEMBERSHIPS,
    NULL_CHECKS,
    PATTERNS,
    RELATIONALS,
    Operator,
)
from factory_logs.schemas.timestamps import MOMENT_FORMS

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "pattern": "^[^\\u0000]*$"}
NUMBER: Schema = {"type": "number", "minimum": -1e300, "maximum": 1e300}
VALUES: dict[Kind, Schema] = {
    Kind.STR: TEXT,
    Kind.INT: {"type": "integer"},
    Kind.FLOAT: NUMBER,
    Kind.DATETIME: {"anyOf": MOMENT_FORMS},
    Kind.JSON: {
        "anyOf": [TEXT, NUMBER, {"type": "boolean"}],
        "description": "Compared only with values of the same JSON type",
    },
}
PATH_PARTS = f"({SEPARATOR}[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*){{1,16}}"

_FILTERS = f"""\
- `filters`: a list of filters, which must all match. A filter is `{{"name", "op", "val"}}`;
  `{{"name", "op", "field"}}` compares two fields; `{{"or": [...]}}`, `{{"and": [...]}}` and `{{"not": {{...}}}}`
  combine filters, at any depth.
- `name`: a field; a field of the related repair, `repair__<field>`; or a JSON path,
  such as `tags__jig_id` or `fields__battery__voltage`.
- `op`: {" · ".join(" ".join(f"`{name}`" for name in operator.value) for operator in Operator)}.
  `has` and `any` take a filter on the related repair as `val`: `{{"name": "repair", "op": "has", "val": {{...}}}}`.
"""
_OTHERS = """\
- `order_by`: `[{"field", "direction": "asc"|"desc"}]`; equal records are ordered by their id.
- `group_by`: `[{"field"}]`: one record for each distinct combination, by default the newest.
- `limit`, `offset`: applied before paging.
- `single`: true to get the single record itself instead of a page.
"""
_VALUES = """
To find nulls, use `is_null` and `is_not_null`; a comparison with null gets a 400. A JSON path matches only values of
the type of `val`: `{"name": "fields__passed", "op": "==", "val": false}` never finds the string "false".
"""
DESCRIPTION = (
    "A JSON object, URL-encoded. All members are optional, and unknown members are ignored.\n\n"
    f"{_FILTERS}{_OTHERS}{_VALUES}"
)
FILTERS_DESCRIPTION = (
    "A JSON object, URL-encoded. This call accepts only `filters`: any other known member of `q` gets a 400.\n\n"
    f"{_FILTERS}{_VALUES}"
)


def query_parameter(name: str, examples: dict[str, Schema], *, only_filters: bool) -> Schema:
    """Return the parameter `q` of a call that selects records of the type `name` (`FactoryLog`, `Repair`).

    With `only_filters`, leave out the members that the call rejects, and the examples that have them.
    """
    if only_filters:
        examples = {key: each for key, each in examples.items() if each["value"].keys() <= {"filters"}}
    return {
        "name": "q",
        "in": "query",
        "required": False,
        "description": FILTERS_DESCRIPTION if only_filters else DESCRIPTION,
        "content": {
            "application/json": {
                "schema": {"$ref": f"#/components/schemas/{name}{'Filters' if only_filters else 'Query'}"},
                "examples": examples,
            }
        },
    }


def query_schemas(name: str, resource: Resource, related: str = "") -> dict[str, Schema]:
    """Return the components that `query_parameter` refers to. `related` is the name of the related record type."""
    return {
        f"{name}Query": _query(name, resource),
        f"{name}Filters": _only_filters(name),
        f"{name}Filter": {"anyOf": list(_filters(name, resource, related)), "title": f"{name}Filter"},
        f"{name}Field": _any_name(resource),
    }


def _only_filters(name: str) -> Schema:
    return {
        "type": "object",
        "title": f"{name}Filters",
        "properties": {"filters": _array({"$ref": f"#/components/schemas/{name}Filter"})},
    }


def _query(name: str, resource: Resource) -> Schema:
    field = {"$ref": f"#/components/schemas/{name}Field"}
    count = {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": 2**53},
            {"type": "string", "pattern": "^[0-9]{1,15}$"},
            {"type": "null"},
        ]
    }
    return {
        "type": "object",
        "title": f"{name}Query",
        "properties": {
            **_only_filters(name)["properties"],
            "order_by": _array(
                {
                    "type": "object",
                    "required": ["field"],
                    "properties": {"field": field, "direction": {"enum": ["asc", "desc"], "default": "asc"}},
                }
            ),
            "group_by": _array({"type": "object", "required": ["field"], "properties": {"field": field}}),
            "limit": count,
            "offset": count,
            "single": {"type": "boolean", "default": False},
        },
    }


def _filters(name: str, resource: Resource, related: str) -> Iterable[Schema]:
    own = {"$ref": f"#/components/schemas/{name}Filter"}
    yield _object(**{"or": _array(own)})
    yield _object(**{"and": _array(own)})
    yield _object(**{"not": own})
    yield _object(name={"$ref": f"#/components/schemas/{name}Field"}, op=_ops(NULL_CHECKS))
    for kind, value in VALUES.items():
        names = _names(resource, kind)
        if names is None:
            continue
        yield _object(name=names, op=_ops(COMPARISONS), val=value)
        yield _object(name=names, op=_ops(MEMBERSHIPS), val=_array(value))
        if kind in (Kind.STR, Kind.JSON):
            yield _object(name=names, op=_ops(PATTERNS), val={"type": "string", "pattern": "^[^\\u0000\\\\]*$"})
        if kind is not Kind.JSON:
            yield _object(name=names, op=_ops(COMPARISONS), field=names)
    whole = [column for column, kind in resource.fields.items() if kind is Kind.JSON]
    if whole:
        anything = {"not": {"type": "null"}, "description": "The whole value"}
        yield _object(name={"enum": whole}, op=_ops(EQUALITIES), val=anything)
    for relation, target in resource.relations.items():
        inner = {"$ref": f"#/components/schemas/{related}Filter"}
        yield _object(name={"const": relation}, op=_ops(RELATIONALS), val=inner)
        short = {"enum": [f"{relation}{SEPARATOR}{c}" for c, k in target.target.fields.items() if k is Kind.STR]}
        yield _object(name=short, op=_ops(RELATIONALS), val=TEXT)


def _object(**members: Schema) -> Schema:
    return {"type": "object", "required": list(members), "properties": members}


def _array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _ops(operators: Iterable[Operator]) -> Schema:
    chosen = set(operators)
    return {"enum": [name for operator in Operator if operator in chosen for name in operator.value]}


def _names(resource: Resource, kind: Kind) -> Schema | None:
    """Return the names of the fields of one kind; for JSON, the paths."""
    if kind is Kind.JSON:
        return _paths(resource)
    own = [column for column, of in resource.fields.items() if of is kind]
    others = [
        f"{relation}{SEPARATOR}{column}"
        for relation, target in resource.relations.items()
        for column, of in target.target.fields.items()
        if of is kind
    ]
    return {"enum": own + others} if own or others else None


def _paths(resource: Resource) -> Schema | None:
    columns = [column for column, kind in resource.fields.items() if kind is Kind.JSON]
    if not columns:
        return None
    return {
        "type": "string",
        "pattern": f"^({'|'.join(columns)}){PATH_PARTS}$",
        "examples": [f"{columns[0]}{SEPARATOR}jig_id"],
        "description": "A JSON path, whose names are joined by two underscores",
    }


def _any_name(resource: Resource) -> Schema:
    names = list(resource.fields)
    for relation, target in resource.relations.items():
        names += [f"{relation}{SEPARATOR}{column}" for column in target.target.fields]
    paths = _paths(resource)
    return {"anyOf": [{"enum": names}, paths]} if paths else {"enum": names}

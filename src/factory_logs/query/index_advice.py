"""Advise how to change a query that took too long: name the parts that no index serves, and say what to do.

It is based on the indexes of the resource's table, not on PostgreSQL's plan.
"""

from collections.abc import Iterable, Iterator, Sequence

from factory_logs.query.ast import And, Compare, CompareFields, Field, Has, Member, Node, Not, Null, Or, Query
from factory_logs.query.compiler import contains
from factory_logs.query.fields import SEPARATOR, Resource
from factory_logs.query.operators import COMPARISONS, Operator

RANGES = COMPARISONS - {Operator.NOT_EQUAL}
"""The operators for which a btree index can be used."""
MOST_NAMED = 5


def index_advice_for(query: Query, resource: Resource) -> str:
    """Return the advice for the query, as the end of an error message."""
    served = [node for node in query.filters if _is_served(node, resource)]
    reasons = []
    others = [field for node in query.filters if node not in served for field in _fields(node)]
    if others:
        reasons.append(f"no index serves the filter by {_named(map(field_name, others), 'and')}")
    if query.order_by and not _leads(query.order_by[0].field, resource):
        reasons.append(f"order_by {field_name(query.order_by[0].field)} sorts all that q selects")
    if query.group_by:
        reasons.append("group_by reads all that q selects")
    if not query.filters and not reasons:
        reasons.append("q selects all records")
    return "; ".join([*reasons, _remedy(served, resource)])


def _remedy(served: Sequence[Node], resource: Resource) -> str:
    used = list(dict.fromkeys(field_name(field) for node in served for field in _fields(node)))
    unused = [column for column in _leading(resource) if column not in used]
    narrower = [f"take a smaller part of {_named(used, 'or')}"] if used else []
    added = [f"add a filter by {_named(unused, 'or')}"] if unused else []
    return ", or ".join(narrower + added)


def _leading(resource: Resource) -> list[str]:
    """Return the first columns of the btree indexes, or the primary key if there are none."""
    btrees = [
        index.columns[0].name
        for index in resource.table.indexes
        if index.dialect_options["postgresql"]["using"] in (False, "btree")
    ]
    return sorted(btrees) or [resource.primary_key]


def _leads(field: Field, resource: Resource) -> bool:
    plain = field.relation is None and not field.path
    return plain and field.column in (*_leading(resource), resource.primary_key)


def _is_served(node: Node, resource: Resource) -> bool:
    match node:
        case Compare(field, operator, _):
            by_btree = operator in RANGES and _leads(field, resource)
            return by_btree or contains(resource.table, resource.table, node) is not None
        case Member(field, _, negated):
            return not negated and _leads(field, resource)
        case And(items):
            return any(_is_served(item, resource) for item in items)
        case Or(items):
            return all(_is_served(item, resource) for item in items)
        case _:
            return False


def _fields(node: Node) -> Iterator[Field]:
    match node:
        case Compare(field, _, _) | Member(field, _, _) | Null(field, _):
            yield field
        case CompareFields(left, _, right):
            yield left
            yield right
        case And(items) | Or(items):
            for item in items:
                yield from _fields(item)
        case Not(item):
            yield from _fields(item)
        case Has(relation, item):
            for field in _fields(item):
                yield Field(field.column, field.kind, relation, field.path)


def field_name(field: Field) -> str:
    """Return the name of the field in `q`."""
    return SEPARATOR.join([*([field.relation] if field.relation else []), field.column, *field.path])


def _named(names: Iterable[str], word: str) -> str:
    """Return the names as `a, b and c`, without duplicates and shortened to the first few."""
    distinct = list(dict.fromkeys(names))
    shown = distinct[:MOST_NAMED]
    if len(distinct) > MOST_NAMED:
        return f"{', '.join(shown)} {word} others"
    return f" {word} ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))

"""Parse the text of `q` to a Query, and check each name and value (docs/reference/http-api.md#the-query-language-q).

Raises BadRequestError with the reason and the path in `q`, such as `filters[0].or[1].val`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.query.ast import (
    And,
    Compare,
    CompareFields,
    Field,
    Has,
    Kind,
    Member,
    Node,
    Not,
    Null,
    Or,
    Order,
    Query,
    Value,
)
from factory_logs.query.fields import Resource, nearest_member, resolve, shown
from factory_logs.query.operators import (
    ALIASES,
    MEMBERSHIPS,
    NULL_CHECKS,
    OTHER_SPELLINGS,
    RELATIONALS,
    Operator,
)
from factory_logs.query.values import check_comparable, check_storable, check_value
from factory_logs.schemas.factory_log import as_integer
from factory_logs.schemas.json_values import strict_json
from factory_logs.settings import Settings
from factory_logs.spelling import nearest

UNDECODABLE = "Unable to decode data"
NULL_COMPARED = "To compare a value to NULL, use the is_null/is_not_null operators."
MEMBERS = ("filters", "order_by", "group_by", "limit", "offset", "single")
"""The members of `q`. Other members are ignored."""
FILTER_MEMBERS = ("name", "op", "val", "field", "fieldname", "or", "and", "not")
KEY_MEMBERS = ("field", "direction")
"""The members of an entry in `order_by` or `group_by`."""
SHOWN_JSON = 20
LARGEST_COUNT = 2**62
"""A larger `limit` or `offset` has no other effect. The sum of both must fit in a bigint."""


@dataclass(frozen=True)
class QueryLimits:
    """The limits of one `q`. `max_nodes` counts filters, `order_by` and `group_by` entries together."""

    max_depth: int = 20
    max_nodes: int = 500
    max_in_values: int = 1000
    max_sort_keys: int = 20

    @classmethod
    def from_settings(cls, settings: Settings) -> "QueryLimits":
        return cls(settings.max_filter_depth, settings.max_filter_nodes, settings.max_in_values, settings.max_sort_keys)


def parse_query(text: str | None, resource: Resource, limits: QueryLimits) -> Query:
    """Return the query of `text`; None selects all records. Raises BadRequestError."""
    if text is None:
        return Query()
    try:
        text = text.removeprefix("\ufeff")
        document = strict_json(text)
    except (ValueError, RecursionError) as error:
        raise BadRequestError(UNDECODABLE, [FieldError("q", _undecodable(text, error))]) from None
    if not isinstance(document, dict):
        raise BadRequestError(UNDECODABLE, [FieldError("q", f"must be a JSON object, not {shown(document)}")])
    with _ErrorPath("q"):
        check_storable(document)
    try:
        return _Parser(limits).query(document, resource)
    except BadRequestError as error:
        raise BadRequestError(error.message, [*error.errors, *_ignored(document)]) from None


def _undecodable(text: str, error: Exception) -> str:
    """Return a description of the error in the JSON, with the number of its character."""
    if isinstance(error, RecursionError):
        return "the JSON nests too deep"
    if not isinstance(error, json.JSONDecodeError):
        return str(error)
    if error.pos >= len(text):
        return f"{error.msg} at character {error.pos + 1}, the end"
    return f"{error.msg} at character {error.pos + 1}, at {shown(text[error.pos : error.pos + SHOWN_JSON])}"


def _ignored(document: Mapping[str, Any]) -> list[FieldError]:
    """Return errors about ignored members that are probably misspelt. They are only added to another error."""
    near = nearest_member(document, MEMBERS)
    return [FieldError("q", f"{shown(near[0])} is ignored; did you mean {near[1]}?")] if near else []


class _ErrorPath:
    """A context that adds a path to a ValueError raised inside. It is a class because a context made from a generator
    is slower, and parsing `q` enters dozens of contexts."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ValueError):
            raise BadRequestError(f"Unable to construct query: {self._where}: {error}") from None


class _Parser:
    """Parses one `q` and counts its nodes."""

    def __init__(self, limits: QueryLimits) -> None:
        self._limits = limits
        self._nodes = 0

    def query(self, document: Mapping[str, Any], resource: Resource) -> Query:
        filters = self._filters(document.get("filters", []), resource, "filters", depth=1)
        order_by = tuple(
            self._order(item, resource, where) for item, where in self._items(document.get("order_by", []), "order_by")
        )
        with _ErrorPath("order_by"):
            if len(order_by) > self._limits.max_sort_keys:
                raise ValueError(f"takes up to {self._limits.max_sort_keys} entries, not {len(order_by)}")
        group_by = tuple(
            self._field(item, "field", resource, where)
            for item, where in self._items(document.get("group_by", []), "group_by")
        )
        return Query(
            filters,
            order_by,
            group_by,
            _count(document.get("limit"), "limit"),
            _count(document.get("offset"), "offset"),
            bool(document.get("single")),
        )

    def _items(self, value: object, where: str) -> Iterator[tuple[dict[str, Any], str]]:
        """Yield the objects of a list, each with its path, and count them."""
        with _ErrorPath(where):
            if not isinstance(value, list):
                raise ValueError(f"must be a list, not {shown(value)}")
        for index, item in enumerate(value):
            path = f"{where}[{index}]"
            self._count_node(path)
            with _ErrorPath(path):
                _check_object(item)
            yield item, path

    def _count_node(self, where: str) -> None:
        self._nodes += 1
        with _ErrorPath(where):
            if self._nodes > self._limits.max_nodes:
                raise ValueError(f"more than {self._limits.max_nodes} filters, order_by and group_by entries")

    def _order(self, item: Mapping[str, Any], resource: Resource, where: str) -> Order:
        field = self._field(item, "field", resource, where)
        direction = item.get("direction", "asc")
        with _ErrorPath(f"{where}.direction"):
            if direction not in ("asc", "desc"):
                raise ValueError(f"must be asc or desc, not {shown(direction)}")
        return Order(field, descending=direction == "desc")

    def _field(self, item: Mapping[str, Any], member: str, resource: Resource, where: str) -> Field:
        with _ErrorPath(f"{where}.{member}"):
            if member not in item:
                raise _missing(item, KEY_MEMBERS if member == "field" else FILTER_MEMBERS)
            return resolve(item[member], resource)

    def _filters(self, value: object, resource: Resource, where: str, depth: int) -> tuple[Node, ...]:
        with _ErrorPath(where):
            if depth > self._limits.max_depth:
                raise ValueError(f"filters may nest {self._limits.max_depth} deep")
        return tuple(self._filter(item, resource, path, depth) for item, path in self._items(value, where))

    def _nested(self, value: object, resource: Resource, where: str, depth: int) -> Node:
        """Return a filter inside another one (`not`, `has`)."""
        self._count_node(where)
        with _ErrorPath(where):
            _check_object(value)
            if depth > self._limits.max_depth:
                raise ValueError(f"filters may nest {self._limits.max_depth} deep")
        assert isinstance(value, dict)  # noqa: S101  checked above
        return self._filter(value, resource, where, depth)

    def _filter(self, item: Mapping[str, Any], resource: Resource, where: str, depth: int) -> Node:
        combinators = [name for name in ("or", "and", "not") if name in item]
        with _ErrorPath(where):
            if len(combinators) > 1:
                raise ValueError(f"one filter cannot hold both {' and '.join(combinators)}")
        match combinators:
            case ["or"]:
                return Or(self._filters(item["or"], resource, f"{where}.or", depth + 1))
            case ["and"]:
                return And(self._filters(item["and"], resource, f"{where}.and", depth + 1))
            case ["not"]:
                return Not(self._nested(item["not"], resource, f"{where}.not", depth + 1))
        return self._leaf(item, resource, where, depth)

    def _leaf(self, item: Mapping[str, Any], resource: Resource, where: str, depth: int) -> Node:
        name = item.get("name")
        if isinstance(name, str) and name in resource.relations:
            return self._on_relation(name, item, resource, where, depth)
        field = self._field(item, "name", resource, where)
        operator = _operator(item, where)
        if operator in NULL_CHECKS:
            return _through_relation(field, lambda own: Null(own, operator is Operator.IS_NOT_NULL))
        other = "field" if item.get("field") is not None else "fieldname"
        if item.get(other) is not None:
            right = self._field(item, other, resource, where)
            with _ErrorPath(f"{where}.{other}"):
                check_comparable(field, operator, right)
            return CompareFields(field, operator, right)
        value = _val(item, where)
        if operator in RELATIONALS:
            if field.relation is None:
                with _ErrorPath(f"{where}.op"):
                    raise ValueError(f"{operator.label} takes a relation or a field of one, not {shown(name)}")
            if isinstance(value, dict):  # legacy syntax: the inner filter has its own `name`
                target = resource.relations[field.relation].target
                return Has(field.relation, self._nested(value, target, f"{where}.val", depth + 1))
            operator = Operator.EQUAL
        if operator in MEMBERSHIPS:
            values = self._members(value, field, operator, f"{where}.val")
            return _through_relation(field, lambda own: Member(own, values, operator is Operator.NOT_IN))
        with _ErrorPath(f"{where}.val"):
            checked = check_value(value, field, operator)
        return _through_relation(field, lambda own: Compare(own, operator, checked))

    def _on_relation(self, name: str, item: Mapping[str, Any], resource: Resource, where: str, depth: int) -> Node:
        """Return a filter on the relation itself: has, any, is_null or is_not_null."""
        operator = _operator(item, where)
        if operator in NULL_CHECKS:
            related = Has(name, And(()))
            return related if operator is Operator.IS_NOT_NULL else Not(related)
        with _ErrorPath(f"{where}.op"):
            if operator not in RELATIONALS:
                raise ValueError(f"{name!r} is a relation and takes has, any, is_null and is_not_null")
        target = resource.relations[name].target
        return Has(name, self._nested(_val(item, where), target, f"{where}.val", depth + 1))

    def _members(self, value: object, field: Field, operator: Operator, where: str) -> tuple[Value, ...]:
        with _ErrorPath(where):
            if not isinstance(value, list):
                raise ValueError(f"{operator.label} takes a list, not {shown(value)}")
            if len(value) > self._limits.max_in_values:
                raise ValueError(f"{operator.label} takes up to {self._limits.max_in_values} values, not {len(value)}")
            if field.kind is Kind.JSON and not field.path:
                raise ValueError(f"{field.column} as a whole takes only ==, !=, is_null and is_not_null")
        values = []
        for index, member in enumerate(value):
            with _ErrorPath(f"{where}[{index}]"):
                values.append(check_value(member, field, operator))
        return tuple(values)


def _check_object(value: object) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, not {shown(value)}")


def _missing(item: Mapping[str, Any], known: tuple[str, ...]) -> ValueError:
    """Return the error of an entry without a required member. The error suggests a member that is probably misspelt."""
    near = nearest_member(item, known)
    if near:
        return ValueError(f"missing; did you mean {near[1]} by {shown(near[0])}?")
    form = (
        'an entry is {"field"}, in order_by also with "direction"'
        if known is KEY_MEMBERS
        else 'a filter is {"name", "op", "val"}'
    )
    return ValueError(f"missing; {form}")


def _operator(item: Mapping[str, Any], where: str) -> Operator:
    with _ErrorPath(f"{where}.op"):
        if "op" not in item:
            raise _missing(item, FILTER_MEMBERS)
        name = item["op"]
        if not isinstance(name, str) or name not in ALIASES:
            raise ValueError(f"no operator {shown(name)}; {_operator_meant(name)}")
        return ALIASES[name]


def _operator_meant(name: object) -> str:
    near = OTHER_SPELLINGS.get(name) or nearest(name, ALIASES) if isinstance(name, str) else None
    return f"did you mean {near}?" if near else f"there are {', '.join(operator.label for operator in Operator)}"


def _val(item: Mapping[str, Any], where: str) -> Any:
    with _ErrorPath(f"{where}.val"):
        if "val" not in item:
            raise _missing(item, FILTER_MEMBERS)
    if item["val"] is None:
        raise BadRequestError(NULL_COMPARED)
    return item["val"]


def _through_relation(field: Field, node: Any) -> Node:
    """Return the node. For a field of a relation, return a `Has` of the node, so that a row without a related row never
    matches."""
    own = Field(field.column, field.kind, path=field.path)
    inner: Node = node(own)
    return inner if field.relation is None else Has(field.relation, inner)


def _count(value: object, where: str) -> int | None:
    """Return `limit` or `offset`, which may be a string of digits, or None for null, 0, false and ""
    (docs/reference/http-api.md#the-query-language-q)."""
    value = as_integer(value)
    if not value:
        return None
    with _ErrorPath(where):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"must be an integer that is not negative, not {shown(value)}")
    return min(value, LARGEST_COUNT)

"""Text of `q` -> Query, with every name and value checked on the way (SPEC 4, 5).

Each fault is a BadRequestError that says what is wrong and where, as a path into `q`: `filters[0].or[1].val`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from factory_logs.errors import BadRequestError
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
from factory_logs.query.fields import Resource, resolve, shown
from factory_logs.query.operators import (
    ALIASES,
    MEMBERSHIPS,
    NULL_CHECKS,
    RELATIONALS,
    Operator,
)
from factory_logs.query.values import check_comparable, check_storable, check_value, decode

UNDECODABLE = "Unable to decode data"
NULL_COMPARED = "To compare a value to NULL, use the is_null/is_not_null operators."
LARGEST_COUNT = 2**62
"""A larger `limit` or `offset` says the same, and the sum of the two must stay a bigint."""


@dataclass(frozen=True)
class Limits:
    """How much one `q` may ask for. `max_nodes` counts filters, `order_by` and `group_by` entries together."""

    max_depth: int = 20
    max_nodes: int = 500
    max_in_values: int = 1000


def parse_query(text: str | None, resource: Resource, limits: Limits) -> Query:
    """The query in `text`; without a text, everything. Raises BadRequestError with the messages of SPEC 4."""
    if text is None:
        return Query()
    try:
        document = decode(text)
    except (ValueError, RecursionError):
        raise BadRequestError(UNDECODABLE) from None
    if not isinstance(document, dict):
        raise BadRequestError(UNDECODABLE)
    with _At("q"):
        check_storable(document)
    return _Parser(limits).query(document, resource)


class _At:
    """Adds the place to a ValueError raised inside. Not a generator's context: each `q` enters dozens of them."""

    __slots__ = ("_where",)

    def __init__(self, where: str) -> None:
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, ValueError):
            raise BadRequestError(f"Unable to construct query: {self._where}: {error}") from None


class _Parser:
    """Reads one document; counts its nodes as it goes."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._nodes = 0

    def query(self, document: Mapping[str, Any], resource: Resource) -> Query:
        filters = self._filters(document.get("filters", []), resource, "filters", depth=1)
        order_by = tuple(
            self._order(item, resource, where) for item, where in self._items(document.get("order_by", []), "order_by")
        )
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
        """The objects in a list, each with its place; counted."""
        with _At(where):
            if not isinstance(value, list):
                raise ValueError(f"must be a list, not {shown(value)}")
        for index, item in enumerate(value):
            place = f"{where}[{index}]"
            self._count_node(place)
            with _At(place):
                _check_object(item)
            yield item, place

    def _count_node(self, where: str) -> None:
        self._nodes += 1
        with _At(where):
            if self._nodes > self._limits.max_nodes:
                raise ValueError(f"more than {self._limits.max_nodes} filters, order_by and group_by entries")

    def _order(self, item: Mapping[str, Any], resource: Resource, where: str) -> Order:
        field = self._field(item, "field", resource, where)
        direction = item.get("direction", "asc")
        with _At(f"{where}.direction"):
            if direction not in ("asc", "desc"):
                raise ValueError(f"must be asc or desc, not {shown(direction)}")
        return Order(field, descending=direction == "desc")

    def _field(self, item: Mapping[str, Any], member: str, resource: Resource, where: str) -> Field:
        with _At(f"{where}.{member}"):
            if member not in item:
                raise ValueError("missing")
            return resolve(item[member], resource)

    def _filters(self, value: object, resource: Resource, where: str, depth: int) -> tuple[Node, ...]:
        with _At(where):
            if depth > self._limits.max_depth:
                raise ValueError(f"filters may nest {self._limits.max_depth} deep")
        return tuple(self._filter(item, resource, place, depth) for item, place in self._items(value, where))

    def _nested(self, value: object, resource: Resource, where: str, depth: int) -> Node:
        """One filter inside another (`not`, `has`)."""
        self._count_node(where)
        with _At(where):
            _check_object(value)
            if depth > self._limits.max_depth:
                raise ValueError(f"filters may nest {self._limits.max_depth} deep")
        assert isinstance(value, dict)  # noqa: S101  checked above
        return self._filter(value, resource, where, depth)

    def _filter(self, item: Mapping[str, Any], resource: Resource, where: str, depth: int) -> Node:
        combinators = [name for name in ("or", "and", "not") if name in item]
        with _At(where):
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
            with _At(f"{where}.{other}"):
                check_comparable(field, operator, right)
            return CompareFields(field, operator, right)
        value = _val(item, where)
        if operator in RELATIONALS:
            if field.relation is None:
                with _At(f"{where}.op"):
                    raise ValueError(f"{operator.label} takes a relation or a field of one, not {shown(name)}")
            if isinstance(value, dict):  # legacy: the inner filter names its own field
                target = resource.relations[field.relation].target
                return Has(field.relation, self._nested(value, target, f"{where}.val", depth + 1))
            operator = Operator.EQUAL
        if operator in MEMBERSHIPS:
            values = self._members(value, field, operator, f"{where}.val")
            return _through_relation(field, lambda own: Member(own, values, operator is Operator.NOT_IN))
        with _At(f"{where}.val"):
            checked = check_value(value, field, operator)
        return _through_relation(field, lambda own: Compare(own, operator, checked))

    def _on_relation(self, name: str, item: Mapping[str, Any], resource: Resource, where: str, depth: int) -> Node:
        """A filter on the relation itself: has, any, and whether there is one at all."""
        operator = _operator(item, where)
        if operator in NULL_CHECKS:
            related = Has(name, And(()))
            return related if operator is Operator.IS_NOT_NULL else Not(related)
        with _At(f"{where}.op"):
            if operator not in RELATIONALS:
                raise ValueError(f"{name!r} is a relation and takes has, any, is_null and is_not_null")
        target = resource.relations[name].target
        return Has(name, self._nested(_val(item, where), target, f"{where}.val", depth + 1))

    def _members(self, value: object, field: Field, operator: Operator, where: str) -> tuple[Value, ...]:
        with _At(where):
            if not isinstance(value, list):
                raise ValueError(f"{operator.label} takes a list, not {shown(value)}")
            if len(value) > self._limits.max_in_values:
                raise ValueError(f"{operator.label} takes up to {self._limits.max_in_values} values, not {len(value)}")
            if field.kind is Kind.JSON and not field.path:
                raise ValueError(f"{field.column} as a whole takes only ==, !=, is_null and is_not_null")
        values = []
        for index, member in enumerate(value):
            with _At(f"{where}[{index}]"):
                values.append(check_value(member, field, operator))
        return tuple(values)


def _check_object(value: object) -> None:
    if not isinstance(value, dict):
        raise ValueError(f"must be an object, not {shown(value)}")


def _operator(item: Mapping[str, Any], where: str) -> Operator:
    with _At(f"{where}.op"):
        if "op" not in item:
            raise ValueError("missing")
        name = item["op"]
        if not isinstance(name, str) or name not in ALIASES:
            raise ValueError(f"no operator {shown(name)}; there are {', '.join(o.label for o in Operator)}")
        return ALIASES[name]


def _val(item: Mapping[str, Any], where: str) -> Any:
    with _At(f"{where}.val"):
        if "val" not in item:
            raise ValueError("missing")
    if item["val"] is None:
        raise BadRequestError(NULL_COMPARED)
    return item["val"]


def _through_relation(field: Field, node: Any) -> Node:
    """A filter on `repair__process` asks for a repair that matches: a row without one never does, whatever the test."""
    own = Field(field.column, field.kind, path=field.path)
    inner: Node = node(own)
    return inner if field.relation is None else Has(field.relation, inner)


def _count(value: object, where: str) -> int | None:
    """`limit` or `offset`; what is falsy says nothing (SPEC 4)."""
    if not value:
        return None
    with _At(where):
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"must be an integer that is not negative, not {shown(value)}")
    return min(value, LARGEST_COUNT)

"""What a `q` says once it is understood: typed, immutable and free of SQL (SPEC 4, 5).

Every name in it is known to exist and every value has been checked against its field, so compiling cannot fail.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum

from factory_logs.query.operators import Operator


class Kind(Enum):
    """What a column holds, as far as `q` cares."""

    INT = "an integer"
    STR = "a string"
    DATETIME = "a datetime"
    FLOAT = "a number"
    JSON = "JSON"


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the resource, of its relation, or (with a `path`) a place inside a JSON column."""

    column: str
    kind: Kind
    relation: str | None = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value as text, with the type `jsonb_typeof` gives for it.

    Text, because that keeps 64-bit integers exact and leaves the value to PostgreSQL's own JSON comparison.
    """

    text: str
    type: str


@dataclass(frozen=True, slots=True)
class Huge:
    """An integer that no column can hold, and that compares all the same."""

    number: Decimal


Value = int | float | str | datetime | Json | Huge


@dataclass(frozen=True, slots=True)
class Compare:
    """`field operator value`; the operator is a comparison or a pattern."""

    field: Field
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class CompareFields:
    """`left operator right`; both are fields."""

    left: Field
    operator: Operator
    right: Field


@dataclass(frozen=True, slots=True)
class Member:
    """The field's value is one of, or with `negated` none of, `values`."""

    field: Field
    values: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Null:
    """The field is null, or with `negated` is not. A path is null where it is missing or holds JSON null."""

    field: Field
    negated: bool


@dataclass(frozen=True, slots=True)
class And:
    """All match; with no items, always."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one matches; with no items, never (as an empty `in`)."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Matches exactly the rows that `item` does not match: there is no third truth value in `q`."""

    item: "Node"


@dataclass(frozen=True, slots=True)
class Has:
    """There is a related row and it matches `item`; fields in `item` are the related resource's."""

    relation: str
    item: "Node"


Node = Compare | CompareFields | Member | Null | And | Or | Not | Has


@dataclass(frozen=True, slots=True)
class Order:
    """One key of `order_by`."""

    field: Field
    descending: bool = False


@dataclass(frozen=True, slots=True)
class Query:
    """A whole `q`. `filters` is a conjunction; `limit` and `offset` come before paging."""

    filters: tuple[Node, ...] = ()
    order_by: tuple[Order, ...] = ()
    group_by: tuple[Field, ...] = ()
    limit: int | None = None
    offset: int | None = None
    single: bool = False

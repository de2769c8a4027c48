"""The syntax tree of `q`: typed, immutable and without SQL (docs/reference/http-api.md#the-query-language-q).

The parser has checked that each name exists and that each value suits its field, so compiling cannot fail.
"""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import Enum

from factory_logs.query.operators import Operator


class Kind(Enum):
    """The types of columns that `q` distinguishes."""

    INT = "an integer"
    STR = "a string"
    DATETIME = "a datetime"
    FLOAT = "a number"
    JSON = "JSON"


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the resource or of its relation, or with a `path` a value inside a JSON column."""

    column: str
    kind: Kind
    relation: str | None = None
    path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Json:
    """A JSON value as text, with its type according to `jsonb_typeof`.

    Text keeps 64-bit integers exact and leaves the comparison to PostgreSQL.
    """

    text: str
    type: str


@dataclass(frozen=True, slots=True)
class OutOfRangeInteger:
    """An integer that no column can contain, but that can be compared."""

    number: Decimal


Value = int | float | str | datetime | Json | OutOfRangeInteger


@dataclass(frozen=True, slots=True)
class Compare:
    """`field operator value`. The operator is a comparison or a pattern."""

    field: Field
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class CompareFields:
    """`left operator right`. Both sides are fields."""

    left: Field
    operator: Operator
    right: Field


@dataclass(frozen=True, slots=True)
class Member:
    """The field's value is in `values`, or with `negated` it is not in `values`."""

    field: Field
    values: tuple[Value, ...]
    negated: bool


@dataclass(frozen=True, slots=True)
class Null:
    """The field is null, or with `negated` it is not null. A path is null if it is missing or contains JSON null."""

    field: Field
    negated: bool


@dataclass(frozen=True, slots=True)
class And:
    """All items match. Without items it always matches."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """At least one item matches. Without items it never matches, like an empty `in`."""

    items: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Matches exactly the rows that `item` does not match, because `q` has no third truth value."""

    item: "Node"


@dataclass(frozen=True, slots=True)
class Has:
    """A related row exists and matches `item`. The fields in `item` belong to the related resource."""

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
    """A complete `q`. All `filters` must match. `limit` and `offset` are applied before paging."""

    filters: tuple[Node, ...] = ()
    order_by: tuple[Order, ...] = ()
    group_by: tuple[Field, ...] = ()
    limit: int | None = None
    offset: int | None = None
    single: bool = False

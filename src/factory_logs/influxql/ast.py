"""The syntax tree of InfluxQL: typed, immutable and free of SQL (docs/reference/influxql.md)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum


class Type(Enum):
    """The type of a value. If a name has several types, the first one in this list is used."""

    FLOAT = "float"
    INTEGER = "integer"
    STRING = "string"
    BOOLEAN = "boolean"
    TAG = "tag"
    FIELD = "field"
    """A field of any type."""
    UNSIGNED = "unsigned"

    @property
    def preference(self) -> int:
        return _PREFERENCE[self]


_PREFERENCE = {each: rank for rank, each in enumerate(Type)}
NUMBERS = frozenset({Type.FLOAT, Type.INTEGER})


@dataclass(frozen=True, slots=True)
class Reference:
    """The name of a field, a tag or a column of a subquery. `type` is None until it is known."""

    name: str
    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its arguments."""

    name: str
    arguments: tuple["Expression", ...] = ()


@dataclass(frozen=True, slots=True)
class Distinct:
    """`DISTINCT name`, another spelling of `distinct(name)`."""

    name: str


@dataclass(frozen=True, slots=True)
class Wildcard:
    """`*`, or with a type `*::field` or `*::tag`."""

    type: Type | None = None


@dataclass(frozen=True, slots=True)
class Regex:
    """A regular expression, without its slashes."""

    pattern: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A string, a boolean, a float or an integer. An integer above 2**63 - 1 is unsigned. None is a missing value."""

    value: str | bool | int | float | None


@dataclass(frozen=True, slots=True)
class Duration:
    """A duration in nanoseconds."""

    nanoseconds: int


@dataclass(frozen=True, slots=True)
class Time:
    """A time in nanoseconds since 1970, UTC."""

    nanoseconds: int


@dataclass(frozen=True, slots=True)
class Binary:
    """`left operator right`. The operator is spelled as in the language; `AND` and `OR` are in capitals."""

    operator: str
    left: "Expression"
    right: "Expression"


@dataclass(frozen=True, slots=True)
class Paren:
    """An expression in parentheses."""

    expression: "Expression"


Expression = Reference | Call | Distinct | Wildcard | Regex | Literal | Duration | Time | Binary | Paren


@dataclass(frozen=True, slots=True)
class SelectField:
    """A column of SELECT: an expression and its alias."""

    expression: Expression
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Measurement:
    """A measurement by name, or a regular expression for names of measurements. There is only one database and one
    retention policy."""

    name: str = ""
    regex: Regex | None = None
    database: str = ""
    policy: str = ""


class Fill(Enum):
    """The options of fill(), which sets the value of an empty time bucket."""

    NULL = "null"
    NONE = "none"
    PREVIOUS = "previous"
    LINEAR = "linear"
    NUMBER = "number"


@dataclass(frozen=True, slots=True)
class Select:
    """A SELECT statement. A limit or offset of 0 means none. `zone` is an IANA name; `into` is the target of INTO."""

    fields: tuple[SelectField, ...]
    sources: tuple["Source", ...]
    condition: Expression | None = None
    dimensions: tuple[Expression, ...] = ()
    fill: Fill = Fill.NULL
    fill_value: float | int | None = None
    is_sorted: bool = False
    descending: bool = False
    limit: int = 0
    offset: int = 0
    series_limit: int = 0
    series_offset: int = 0
    zone: str | None = None
    into: Measurement | None = None


Source = Measurement | Select
"""A source in FROM; a Select is a subquery."""


class Shown(Enum):
    """The list that a SHOW statement returns. The value of a member is the text after SHOW."""

    DATABASES = "DATABASES"
    RETENTION_POLICIES = "RETENTION POLICIES"
    MEASUREMENTS = "MEASUREMENTS"
    SERIES = "SERIES"
    TAG_KEYS = "TAG KEYS"
    TAG_VALUES = "TAG VALUES"
    FIELD_KEYS = "FIELD KEYS"
    MEASUREMENT_CARDINALITY = "MEASUREMENT CARDINALITY"
    SERIES_CARDINALITY = "SERIES CARDINALITY"
    TAG_KEY_CARDINALITY = "TAG KEY CARDINALITY"
    TAG_VALUES_CARDINALITY = "TAG VALUES CARDINALITY"
    FIELD_KEY_CARDINALITY = "FIELD KEY CARDINALITY"
    USERS = "USERS"
    QUERIES = "QUERIES"
    CONTINUOUS_QUERIES = "CONTINUOUS QUERIES"


UNDIVIDED = frozenset({
    Shown.DATABASES, Shown.RETENTION_POLICIES, Shown.MEASUREMENTS, Shown.TAG_KEYS, Shown.TAG_VALUES, Shown.USERS,
    Shown.QUERIES, Shown.CONTINUOUS_QUERIES,
})  # fmt: skip
"""The lists whose series are not divided into chunks."""


@dataclass(frozen=True, slots=True)
class KeyCondition:
    """The clause `WITH KEY operator ...`, with the names or the regular expression after the operator."""

    operator: str
    names: tuple[str, ...] = ()
    regex: Regex | None = None


@dataclass(frozen=True, slots=True)
class Show:
    """A SHOW statement with its clauses."""

    shown: Shown
    database: str = ""
    sources: tuple[Measurement, ...] = ()
    with_measurement: Measurement | None = None
    key: KeyCondition | None = None
    condition: Expression | None = None
    dimensions: tuple[Expression, ...] = ()
    is_sorted: bool = False
    descending: bool = False
    limit: int = 0
    offset: int = 0
    exact: bool = False


@dataclass(frozen=True, slots=True)
class CreateDatabase:
    """CREATE DATABASE. It has no effect, because there is only one database."""

    name: str
    options: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Explain:
    """EXPLAIN of a SELECT."""

    select: Select
    analyze: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A statement that writes or manages data; `name` is its command, such as `DROP MEASUREMENT`."""

    name: str


Statement = Select | Show | CreateDatabase | Explain | Refused


def nodes(expression: Expression) -> Iterator[Expression]:
    """Yield an expression and all its parts, from left to right, each node before its parts."""
    stack = [expression]
    while stack:
        node = stack.pop()
        yield node
        match node:
            case Binary(_, left, right):
                stack += (right, left)
            case Call(_, arguments):
                stack += reversed(arguments)
            case Paren(inner):
                stack.append(inner)


def rewrite(expression: Expression, change: Callable[[Expression], Expression]) -> Expression:
    """Return the expression with each node replaced by the result of `change`. Parts are replaced before the node that
    contains them."""
    match expression:
        case Binary(_, left, right):
            expression = replace(expression, left=rewrite(left, change), right=rewrite(right, change))
        case Call(_, arguments):
            expression = replace(expression, arguments=tuple(rewrite(each, change) for each in arguments))
        case Paren(inner):
            expression = Paren(rewrite(inner, change))
    return change(expression)

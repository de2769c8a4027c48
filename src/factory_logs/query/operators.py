"""The operators of `q`: their names, the values they take, and their groups.

The parser, the OpenAPI document, error messages and the table in docs/reference/http-api.md#operators are derived from
this module.
"""

from enum import Enum


class Operator(Enum):
    """An operator. Its value is the tuple of its names in `q`, the preferred one first."""

    EQUAL = ("==", "eq", "equals", "equals_to", "equal_to")
    NOT_EQUAL = ("!=", "ne", "neq", "does_not_equal", "not_equal_to")
    GREATER = (">", "gt")
    LESS = ("<", "lt")
    GREATER_OR_EQUAL = (">=", "ge", "gte", "geq")
    LESS_OR_EQUAL = ("<=", "le", "lte", "leq")
    IN = ("in",)
    NOT_IN = ("not_in",)
    IS_NULL = ("is_null",)
    IS_NOT_NULL = ("is_not_null",)
    LIKE = ("like",)
    ILIKE = ("ilike",)
    HAS = ("has",)
    ANY = ("any",)

    @property
    def label(self) -> str:
        """The preferred name."""
        return str(self.value[0])


ALIASES: dict[str, Operator] = {alias: operator for operator in Operator for alias in operator.value}
OTHER_SPELLINGS = {"=": "==", "<>": "!=", "=>": ">=", "=<": "<="}
"""Operators of other languages, for which an error message gives the name in `q`."""

EQUALITIES = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
COMPARISONS = EQUALITIES | {
    Operator.GREATER,
    Operator.LESS,
    Operator.GREATER_OR_EQUAL,
    Operator.LESS_OR_EQUAL,
}
"""The operators that can also compare two fields."""
MEMBERSHIPS = frozenset({Operator.IN, Operator.NOT_IN})
NULL_CHECKS = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})
PATTERNS = frozenset({Operator.LIKE, Operator.ILIKE})
RELATIONALS = frozenset({Operator.HAS, Operator.ANY})

_TAKES = {
    COMPARISONS: "a value or a field",
    MEMBERSHIPS: "a list of values",
    NULL_CHECKS: "nothing; `val` is ignored",
    frozenset({Operator.LIKE}): "a pattern with `%` and `_`, case-sensitive; a backslash takes the next one literally",
    frozenset({Operator.ILIKE}): "the same, not case-sensitive",
    RELATIONALS: "a filter on the related repair, or a value",
}


def markdown_table() -> str:
    """Return the operators as the table in docs/reference/http-api.md; a test compares both."""
    rows = ["| operator | other names | takes |", "|---|---|---|"]
    for operator in Operator:
        takes = next(text for group, text in _TAKES.items() if operator in group)
        others = " ".join(f"`{name}`" for name in operator.value[1:])
        rows.append(f"| `{operator.label}` | {others}{' ' if others else ''}| {takes} |")
    return "\n".join(rows)

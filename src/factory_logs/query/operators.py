"""The one table of the operators of `q` (SPEC 4). Documentation and error messages are derived from it."""

from enum import Enum


class Operator(Enum):
    """An operator; its value is the tuple of all names a client may use, the preferred one first."""

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

EQUALITIES = frozenset({Operator.EQUAL, Operator.NOT_EQUAL})
COMPARISONS = EQUALITIES | {
    Operator.GREATER,
    Operator.LESS,
    Operator.GREATER_OR_EQUAL,
    Operator.LESS_OR_EQUAL,
}
"""The operators that also compare two fields."""
MEMBERSHIPS = frozenset({Operator.IN, Operator.NOT_IN})
NULL_CHECKS = frozenset({Operator.IS_NULL, Operator.IS_NOT_NULL})
PATTERNS = frozenset({Operator.LIKE, Operator.ILIKE})
RELATIONALS = frozenset({Operator.HAS, Operator.ANY})

"""Evaluate expressions over values, by InfluxDB's rules for types and missing values.

A value is a bool, int, float or str, or None if it is missing. Integers have 64 bits and wrap around. Booleans do not
count as numbers, although bool is a subclass of int in Python.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from factory_logs.influxql.ast import Binary, Call, Expression, Literal, Paren, Reference, Regex
from factory_logs.influxql.math_functions import MATH_FUNCTIONS, call

Value = bool | int | float | str | None
COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})


def wrapped(number: int) -> int:
    """Return the integer wrapped around to 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


def quotient(left: int, right: int) -> int:
    """Return the quotient of two integers, truncated as in Go."""
    return abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)


def evaluate(
    expression: Expression,
    values: Mapping[Expression, Value],
    *,
    divide_exactly: bool = True,
    matches: Callable[[str, str], bool] | None = None,
) -> Value:
    """Return the value of an expression; `values` contains the values of its references and calls.

    With `divide_exactly`, the division of two integers is a float, as in SELECT; without it, the quotient is truncated,
    as in WHERE. `matches` returns whether a text contains a match of a regular expression.
    """
    match expression:
        case Literal(value):
            return value
        case Paren(inner):
            return evaluate(inner, values, divide_exactly=divide_exactly, matches=matches)
        case Reference():
            return values.get(expression)
        case Binary(("=~" | "!~") as operator, left, Regex(pattern)):
            text = evaluate(left, values)
            if not isinstance(text, str) or matches is None:
                return False
            return matches(pattern, text) is (operator == "=~")
        case Binary(operator, left, right):
            return apply(
                operator,
                evaluate(left, values, divide_exactly=divide_exactly, matches=matches),
                evaluate(right, values, divide_exactly=divide_exactly, matches=matches),
                divide_exactly=divide_exactly,
            )
        case Call(name, arguments) if name in MATH_FUNCTIONS:
            return call(name, [evaluate(each, values, divide_exactly=divide_exactly) for each in arguments])
        case Call():
            return values.get(expression)
    return None


def apply(operator: str, left: Value, right: Value, *, divide_exactly: bool = True) -> Value:
    """Return `left operator right`. If the operator does not accept these types, return False for a comparison, else
    None."""
    if left is None and isinstance(right, bool):
        left = False
    elif right is None and isinstance(left, bool):
        right = False
    if isinstance(left, bool) and isinstance(right, bool):
        return _BOOLEANS[operator](left, right) if operator in _BOOLEANS else _nothing(operator)
    if isinstance(left, str) and isinstance(right, str):
        return _STRINGS[operator](left, right) if operator in _STRINGS else _nothing(operator)
    if left is None or right is None or isinstance(left, bool | str) or isinstance(right, bool | str):
        return _nothing(operator)
    if isinstance(left, int) and isinstance(right, int):
        return _integers(operator, left, right, divide_exactly=divide_exactly)
    return _floats(operator, float(left), float(right))


def _nothing(operator: str) -> Value:
    return False if operator in COMPARISONS else None


_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}
_BOOLEANS: dict[str, Callable[[bool, bool], bool]] = {
    "AND": lambda a, b: a and b,
    "OR": lambda a, b: a or b,
    "&": lambda a, b: a and b,
    "|": lambda a, b: a or b,
    "^": lambda a, b: a != b,
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}
_STRINGS: dict[str, Callable[[str, str], bool]] = {"=": lambda a, b: a == b, "!=": lambda a, b: a != b}
_WHOLE: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}


def _integers(operator: str, left: int, right: int, *, divide_exactly: bool) -> Value:
    if operator in _COMPARED:
        return _COMPARED[operator](left, right)
    if operator in _WHOLE:
        return wrapped(_WHOLE[operator](left, right))
    if operator == "/" and divide_exactly:
        return left / right if right else 0.0
    if operator not in ("/", "%"):
        return None
    if not right:
        return 0
    whole = quotient(left, right)
    return wrapped(whole if operator == "/" else left - whole * right)


def _floats(operator: str, left: float, right: float) -> Value:
    if operator in _COMPARED:
        return _COMPARED[operator](left, right)
    match operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right if right else 0.0
        case "%":
            return math.fmod(left, right) if right and math.isfinite(left) else math.nan
    return None

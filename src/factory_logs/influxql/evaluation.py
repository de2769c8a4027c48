"""Evaluate expressions over values, by InfluxDB's rules for types and missing values.

A value is a bool, int, float or str, or None if it is missing. Integers have 64 bits and wrap around. Booleans do not
count as numbers, although bool is a subclass of int in Python.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from factory_logs.influxql.ast import Binary, Call, Expression, Literal, Paren, Reference, Regex

Value = bool | int | float | str | None
COMPARISONS = frozenset({"=", "!=", "<", "<=", ">", ">="})
MATCHES = frozenset({"=~", "!~"})
LOGIC = frozenset({"AND", "OR"})
ARITHMETIC = frozenset("+-*/%&|^")


def wrapped(number: int) -> int:
    """Return the integer wrapped around to 64 bits."""
    return (number + 2**63) % 2**64 - 2**63


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
        case Call(name, arguments) if name in MATHEMATICS:
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
    quotient = abs(left) // abs(right) * (1 if (left < 0) == (right < 0) else -1)
    return wrapped(quotient if operator == "/" else left - quotient * right)


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


def _rounded(number: float) -> float:
    whole = float(math.trunc(number)) if math.isfinite(number) else number
    return whole + math.copysign(1, number) if abs(number - whole) >= 0.5 else whole


def _guarded(function: Callable[..., float]) -> Callable[..., float]:
    """Return a function that gives the result of IEEE 754 if Python would raise an error."""

    def guarded(*arguments: float) -> float:
        try:
            return function(*arguments)
        except OverflowError:
            return math.inf
        except (ValueError, ZeroDivisionError):
            return -math.inf if function in _LOGARITHMS and arguments[0] == 0 else math.nan

    return guarded


_LOGARITHMS = frozenset({math.log, math.log2, math.log10})
_OF_ONE: dict[str, Callable[..., float]] = {
    "sin": math.sin, "cos": math.cos, "tan": math.tan, "asin": math.asin, "acos": math.acos, "atan": math.atan,
    "exp": math.exp, "ln": math.log, "log2": math.log2, "log10": math.log10, "sqrt": math.sqrt,
}  # fmt: skip
_OF_TWO: dict[str, Callable[..., float]] = {
    "atan2": math.atan2,
    "pow": math.pow,
    "log": lambda number, base: math.log(number) / math.log(base),
}
_KEEPING: dict[str, Callable[[float], float]] = {
    "abs": abs,
    "floor": lambda number: float(math.floor(number)) if math.isfinite(number) else number,
    "ceil": lambda number: float(math.ceil(number)) if math.isfinite(number) else number,
    "round": _rounded,
}
"""Functions that return integers unchanged, as in InfluxDB 1.6. Even abs() does so."""
MATHEMATICS = frozenset({*_OF_ONE, *_OF_TWO, *_KEEPING})
"""The functions of a single value, as opposed to the functions over many points."""
OF_TWO_ARGUMENTS = frozenset(_OF_TWO)


def call(name: str, arguments: list[Value]) -> Value:
    """Return the result of a function of a single value, or None if an argument is not a number."""
    if any(isinstance(each, bool | str) or each is None for each in arguments):
        return None
    if name in _KEEPING:
        (number,) = arguments
        return number if isinstance(number, int) else _KEEPING[name](number)  # type: ignore[arg-type]
    function = _OF_ONE[name] if name in _OF_ONE else _OF_TWO[name]
    return _guarded(function)(*map(float, arguments))  # type: ignore[arg-type]

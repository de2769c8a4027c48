"""Compute InfluxQL's mathematical functions, which take one or two numbers.

The functions over many points are in point_functions.py.
"""

import math
from collections.abc import Callable, Sequence


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    """Return a function that converts a finite number to a whole one, and keeps the sign of zero."""
    return lambda number: math.copysign(function(number), number) if math.isfinite(number) else number


def _rounded(number: float) -> int:
    whole = math.trunc(number)
    return whole + int(math.copysign(1, number)) if abs(number - whole) >= 0.5 else whole


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
    "floor": _whole(math.floor),
    "ceil": _whole(math.ceil),
    "round": _whole(_rounded),
}
"""Functions that return integers unchanged, as in InfluxDB 1.6. Even abs() does so."""
MATH_FUNCTIONS = frozenset({*_OF_ONE, *_OF_TWO, *_KEEPING})
OF_TWO_ARGUMENTS = frozenset(_OF_TWO)


def call(name: str, arguments: Sequence[object]) -> int | float | None:
    """Return the result of a function, or None if an argument is not a number."""
    if any(isinstance(each, bool | str) or each is None for each in arguments):
        return None
    if name in _KEEPING:
        (number,) = arguments
        return number if isinstance(number, int) else _KEEPING[name](number)  # type: ignore[arg-type]
    function = _OF_ONE[name] if name in _OF_ONE else _OF_TWO[name]
    return _guarded(function)(*map(float, arguments))  # type: ignore[arg-type]

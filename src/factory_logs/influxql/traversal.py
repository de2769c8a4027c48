"""Traverse the nodes of an expression."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from factory_logs.influxql.ast import Binary, Call, Expression, Paren


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

"""Parse expressions: references, calls, literals and operators."""

from dataclasses import dataclass

from factory_logs.influxql import lexer
from factory_logs.influxql.ast import (
    Binary,
    Call,
    Distinct,
    Duration,
    Expression,
    Literal,
    Paren,
    Reference,
    Regex,
    Type,
    Wildcard,
)
from factory_logs.influxql.bound_parameters import NONE, Parameters
from factory_logs.influxql.errors import InfluxqlError, ParseError
from factory_logs.influxql.lexer import Lexer, SyntaxToken, parse_duration
from factory_logs.influxql.regexes import compiled
from factory_logs.influxql.text import quote_identifier

PRECEDENCE = {
    "OR": 1, "AND": 2,
    "=": 3, "!=": 3, "=~": 3, "!~": 3, "<": 3, "<=": 3, ">": 3, ">=": 3,
    "+": 4, "-": 4, "|": 4, "^": 4,
    "*": 5, "/": 5, "%": 5, "&": 5,
}  # fmt: skip
"""The precedence of operators. Operators of equal precedence are evaluated from left to right."""
LARGEST_UNSIGNED = 2**64 - 1
LONGEST_CHAIN = 100
"""The maximum number of operators other than AND and OR in a row without parentheses."""
_TYPES = {each.value: each for each in (Type.FLOAT, Type.INTEGER, Type.UNSIGNED, Type.STRING, Type.BOOLEAN)}


@dataclass(frozen=True, slots=True)
class ParserLimits:
    """The limits of one query."""

    characters: int = 64 * 1024
    statements: int = 100
    depth: int = 50
    """The maximum nesting depth of parentheses, calls and subqueries."""
    nodes: int = 5_000
    """The maximum number of names, literals and calls in a query."""


class ExpressionParser:
    """Parses the expressions of one text. The parser of statements is a subclass."""

    def __init__(self, text: str, parameters: Parameters = NONE, limits: ParserLimits | None = None) -> None:
        """Raises ParseError if the text is too long."""
        self.limits = limits or ParserLimits()
        if len(text) > self.limits.characters:
            raise ParseError(f"the query is longer than {self.limits.characters} characters")
        self._lexer = Lexer(text.strip())
        self._parameters = parameters
        self._position = 0
        self._tokens: dict[int, SyntaxToken] = {}  # cached by position, because the parser often goes back
        self._looked_behind_end = False
        self._depth = 0
        self._nodes = 0

    # Tokens

    def scan(self) -> SyntaxToken:
        """Return the next token, including white space and comments, and advance past it."""
        token = self._tokens.get(self._position)
        if token is None:
            token = self._tokens[self._position] = self._bound(self._lexer.read(self._position))
        self._position = token.end
        return token

    def next(self) -> SyntaxToken:
        """Return the next token that is not white space or a comment, and advance past it."""
        while (token := self.scan()).kind in (lexer.WHITESPACE, lexer.COMMENT):
            pass
        return token

    def peek(self) -> SyntaxToken:
        """Return the next token that is not white space or a comment, without advancing."""
        position = self._position
        token = self.next()
        self._position = position
        return token

    def accept(self, kind: str) -> bool:
        """Advance past the next token if it is of this kind. Return whether it is."""
        position = self._position
        if self.next().kind == kind:
            return True
        self._position = position
        return False

    def expect(self, *kinds: str) -> None:
        """Advance past tokens of these kinds. Raises ParseError for a token of another kind."""
        for kind in kinds:
            token = self.next()
            if token.kind != kind:
                raise self.unexpected(token, kind)

    def unexpected(self, token: SyntaxToken, *expected: str) -> ParseError:
        """Return the error for a token that is not allowed at this position."""
        position = token.start
        if token.kind in (lexer.STRING, lexer.BAD_STRING):
            position -= 1
        elif token.kind == lexer.EOF:
            before = next((each for each in self._tokens.values() if each.start < each.end == position), None)
            position += self._looked_behind_end or self._lexer.is_end_counted(before)
        return self._lexer.error(f"found {token.shown}, expected {', '.join(expected)}", position)

    def _bound(self, token: SyntaxToken) -> SyntaxToken:
        if token.kind != lexer.PARAMETER:
            return token
        kind, text = self._parameters.get(token.text[1:], (lexer.PARAMETER, token.text))
        return token if kind == lexer.PARAMETER else token._replace(kind=kind, text=text)

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > self.limits.depth:
            raise ParseError(f"the query is nested deeper than {self.limits.depth} levels")

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > self.limits.nodes:
            raise ParseError(f"the query has more than {self.limits.nodes} names, literals and calls")

    # Names

    def identifier(self) -> str:
        """Parse an identifier. Raises ParseError."""
        token = self.next()
        if token.kind != lexer.IDENTIFIER:
            raise self.unexpected(token, "identifier")
        return token.text

    def segments(self) -> list[str]:
        """Parse a name with up to three parts, such as `"db"."policy"."measurement"`. Raises ParseError."""
        found = [self.identifier()]
        while self._lexer.read(self._position).kind == ".":
            self._position += 1
            following = self._lexer.at(self._position)
            self._looked_behind_end = not following
            if following in ("/", ":") and following:
                break
            if following == ".":
                found.append("")
                continue
            found.append(self.identifier())
        if len(found) > 3:
            name = ".".join([*(f'"{part}"' for part in found[:-1]), quote_identifier(found[-1])])
            raise ParseError(f"too many segments in {name} at line 1, char 1")
        return found

    def reference(self) -> Reference:
        """Parse a reference with an optional type. Raises ParseError."""
        self._count()
        name = ".".join(self.segments())
        if self._lexer.read(self._position).kind != "::":
            return Reference(name)
        self._position += 2
        token = self.scan()
        match token.kind:
            case "FIELD":
                return Reference(name, Type.FIELD)
            case "TAG":
                return Reference(name, Type.TAG)
            case lexer.IDENTIFIER if token.text.lower() in _TYPES:
                return Reference(name, _TYPES[token.text.lower()])
            case lexer.IDENTIFIER:
                raise self.unexpected(token, "float", "integer", "unsigned", "string", "boolean", "field", "tag")
        raise self.unexpected(token, "float", "integer", "string", "boolean", "field", "tag")

    def regex(self) -> Regex | None:
        """Parse a regular expression if the next token begins one, else return None. Raises ParseError."""
        if self._lexer.read(self._position).kind == lexer.WHITESPACE:
            self.scan()
        start = self._position
        self._looked_behind_end = not self._lexer.at(start)
        if self._lexer.at(start) == "$":
            token = self.scan()
            if token.kind != lexer.REGEX:
                self._position = start
                return None
        elif self._lexer.at(self._position) == "/" and self._lexer.read(self._position).kind != lexer.COMMENT:
            token = self._lexer.regex(self._position)
            self._position = token.end
        else:
            return None
        self._count()
        return self._checked_regex(token)

    def _checked_regex(self, token: SyntaxToken) -> Regex:
        try:
            compiled(token.text)
        except InfluxqlError as error:
            raise self._lexer.error(error.message, token.start - 1) from None
        return Regex(token.text)

    # Expressions

    def expression(self) -> Expression:
        """Parse an expression. Raises ParseError."""
        self._deeper()
        operands, operators = [self._operand()], list[str]()
        while self.peek().kind in PRECEDENCE:
            operator = self.next().kind
            while operators and PRECEDENCE[operators[-1]] >= PRECEDENCE[operator]:
                _join(operands, operators)
            operators.append(operator)
            operands.append(self._pattern() if operator in ("=~", "!~") else self._operand())
        while operators:
            _join(operands, operators)
        self._depth -= 1
        return balanced(operands[0])

    def _pattern(self) -> Regex:
        found = self.regex()
        if found is None:
            raise self.unexpected(self.next(), "regex")
        return found

    def _operand(self) -> Expression:
        self._count()
        start = self._position
        token = self.next()
        match token.kind:
            case "(":
                inner = self.expression()
                self.expect(")")
                return Paren(inner)
            case lexer.IDENTIFIER:
                if self._lexer.read(self._position).kind == "(":
                    self.scan()
                    return self._call(token.text.lower())
                self._position = start
                return self.reference()
            case "DISTINCT":
                return self._distinct()
            case "*":
                return self._wildcard()
            case "+" | "-":
                return self._signed(token)
        return self._literal(token)

    def _literal(self, token: SyntaxToken) -> Expression:
        match token.kind:
            case lexer.STRING:
                return Literal(token.text)
            case lexer.NUMBER:
                return Literal(float(token.text))
            case lexer.INTEGER:
                value = int(token.text[:30])
                if value > LARGEST_UNSIGNED:
                    raise self._lexer.error("unable to parse integer", token.start)
                return Literal(value)
            case "TRUE" | "FALSE":
                return Literal(token.kind == "TRUE")
            case lexer.DURATION:
                return Duration(parse_duration(token.text))
            case lexer.REGEX:
                return self._checked_regex(token)
            case lexer.PARAMETER:
                raise ParseError(self._why_unbound(token.text[1:]))
        raise self.unexpected(token, "identifier", "string", "number", "bool")

    def _why_unbound(self, name: str) -> str:
        if not name:
            return "empty bound parameter"
        return f"missing parameter: {self._parameters[name][1] if name in self._parameters else name}"

    def _distinct(self) -> Expression:
        token = self.scan()
        if token.kind == "(":
            return self._call("distinct")
        if token.kind != lexer.WHITESPACE:
            raise self.unexpected(token, "(", "identifier")
        return Distinct(self.identifier())

    def _wildcard(self) -> Wildcard:
        if self._lexer.read(self._position).kind != "::":
            return Wildcard()
        self._position += 2
        token = self.scan()
        if token.kind not in ("FIELD", "TAG"):
            raise self.unexpected(token, "field", "tag")
        return Wildcard(Type.FIELD if token.kind == "FIELD" else Type.TAG)

    def _signed(self, sign: SyntaxToken) -> Expression:
        position = self._position
        token = self.next()
        if token.kind not in (lexer.NUMBER, lexer.INTEGER, lexer.DURATION, "(", lexer.IDENTIFIER):
            raise self.unexpected(token, "identifier", "number", "duration", "(")
        self._position = position
        operand = self._operand()
        factor = -1 if sign.kind == "-" else 1
        match operand:
            case Literal(float() as value):
                return Literal(value * factor)
            case Literal(int() as value):
                if factor * value < -(2**63):
                    raise ParseError(f"constant -{value} underflows int64")
                return Literal(factor * value)
            case Duration(nanoseconds):
                return Duration(factor * nanoseconds)
        return Binary("*", Literal(factor), operand)

    def _call(self, name: str) -> Call:
        self._deeper()
        arguments: list[Expression] = []
        first = self.regex()
        if first is None and self._lexer.read(self._position).kind == ")":
            self.scan()
        else:
            arguments.append(first or self.expression())
            while self.accept(","):
                arguments.append(self.regex() or self.expression())
            self.expect(")")
        self._depth -= 1
        return Call(name, tuple(arguments))


def balanced(expression: Expression) -> Expression:
    """Return a chain of AND or of OR as a tree of logarithmic depth. Raises ParseError.

    Chains of other operators must be evaluated from left to right, so their length is limited.
    """
    if not isinstance(expression, Binary):
        return expression
    operator, links, right = expression.operator, [], expression
    while isinstance(right, Binary) and right.operator == operator:
        links.append(right.right)
        right = right.left  # type: ignore[assignment]
    if operator not in ("AND", "OR"):
        _check_chain(expression)
        return expression
    return _tree(operator, [balanced(link) for link in (right, *reversed(links))])


def _tree(operator: str, operands: list[Expression]) -> Expression:
    if len(operands) == 1:
        return operands[0]
    middle = (len(operands) + 1) // 2
    return Binary(operator, _tree(operator, operands[:middle]), _tree(operator, operands[middle:]))


def _check_chain(expression: Expression) -> None:
    length = 0
    while isinstance(expression, Binary):
        length, expression = length + 1, expression.left
    if length > LONGEST_CHAIN:
        raise ParseError(f"an expression has more than {LONGEST_CHAIN} operators in a row")


def _join(operands: list[Expression], operators: list[str]) -> None:
    right = operands.pop()
    operands[-1] = Binary(operators.pop(), operands[-1], right)

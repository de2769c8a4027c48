"""Split the text of a query into the same tokens as InfluxDB 1.x (docs/reference/influxql.md).

A token depends only on its position in the text, so the parser can go back to any position. Only regular expressions
need the parser's help, because a slash can also mean division. The functions at the end parse and format durations.
"""

import re
from typing import NamedTuple

from factory_logs.influxql.errors import ParseError

_WORDS = """
ALL ALTER ANALYZE ANY AS ASC BEGIN BY CARDINALITY CREATE CONTINUOUS DATABASE DATABASES DEFAULT DELETE DESC DESTINATIONS
DIAGNOSTICS DISTINCT DROP DURATION END EVERY EXACT EXPLAIN FIELD FOR FROM GRANT GRANTS GROUP GROUPS IN INF INSERT INTO
KEY KEYS KILL LIMIT MEASUREMENT MEASUREMENTS NAME OFFSET ON ORDER PASSWORD POLICY POLICIES PRIVILEGES QUERIES QUERY READ
REPLICATION RESAMPLE RETENTION REVOKE SELECT SERIES SET SHOW SHARD SHARDS SLIMIT SOFFSET STATS SUBSCRIPTION
SUBSCRIPTIONS TAG TO USER USERS VALUES WHERE WITH WRITE AND OR TRUE FALSE
"""
KEYWORDS = frozenset(_WORDS.split())

EOF, WHITESPACE, COMMENT = "EOF", "WS", "COMMENT"
IDENTIFIER, PARAMETER = "IDENT", "BOUNDPARAM"
NUMBER, INTEGER, DURATION, STRING, REGEX = "NUMBER", "INTEGER", "DURATIONVAL", "STRING", "REGEX"
BAD_STRING, BAD_ESCAPE, ILLEGAL = "BADSTRING", "BADESCAPE", "ILLEGAL"
"""Special kinds of tokens. The kind of an operator, a sign or a keyword is its own text."""

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_DIGITS = frozenset("0123456789")
_NAME_STARTS = _LETTERS | {"_"}
_SPACES = frozenset(" \t\n")
_SOME_SPACES, _SOME_DIGITS = re.compile("[ \t\n]*"), re.compile("[0-9]*")
_NAME, _LAST_NAME = re.compile("[A-Za-z0-9_]*"), re.compile("(?<![A-Za-z0-9_µ])[A-Za-z_][A-Za-z0-9_]*$")
_DURATION = re.compile("[A-Za-z0-9µ]*")
_SIGNS = frozenset({"=~", "!=", "!~", ">=", "<=", "<>", "::", *"+-*/%&|^=><(),;:."})
_ESCAPES = {"n": "\n", "\\": "\\", '"': '"', "'": "'"}

MICROSECOND = 1_000
MILLISECOND = 1_000_000
SECOND = 1_000_000_000
MINUTE, HOUR, DAY, WEEK = 60 * SECOND, 3600 * SECOND, 86400 * SECOND, 7 * 86400 * SECOND

DURATION_UNITS = {
    "w": WEEK, "d": DAY, "h": HOUR, "m": MINUTE, "s": SECOND, "ms": MILLISECOND, "u": MICROSECOND, "µ": MICROSECOND,
    "ns": 1,
}  # fmt: skip
"""The nanoseconds of each unit, from the longest unit to the shortest."""
_DURATION_PART = re.compile("([0-9]+)(ns|ms|[uµmshdw])")
LONGEST_DURATION = 2**63 - 1


class SyntaxToken(NamedTuple):
    """A token, its position in the text, and the position after its end. `text` is empty for keywords and signs."""

    kind: str
    start: int
    end: int
    text: str = ""

    @property
    def shown(self) -> str:
        """The token as errors show it."""
        return self.text or self.kind


class Lexer:
    """Splits one text into tokens."""

    def __init__(self, text: str) -> None:
        self.text = text.replace("\r\n", "\n").replace("\r", "\n")

    def error(self, message: str, position: int) -> ParseError:
        """Return an error with the line and character of a position, both from 1."""
        position = max(position, 0)  # errors in strings report the position before the string, which may be -1
        line = self.text.count("\n", 0, position)
        character = position - (self.text.rfind("\n", 0, position) + 1)
        return ParseError(f"{message} at line {line + 1}, char {character + 1}")

    def at(self, position: int) -> str:
        """Return the character at a position, or empty text at the end."""
        return self.text[position : position + 1]

    def is_end_counted(self, before: SyntaxToken | None) -> bool:
        """Return whether InfluxDB has looked behind the end of the text, and so reports the end one character later:
        after a name or keyword, and after a comment `--`. `before` is the token before the end."""
        if before is not None and before.kind == COMMENT:
            return self.text.startswith("--", before.start)
        return _LAST_NAME.search(self.text) is not None

    def read(self, position: int) -> SyntaxToken:
        """Return the token at a position, including white space and comments."""
        first = self.at(position)
        if not first or first == "\0":
            return SyntaxToken(EOF, position, position)
        if first in _SPACES:
            return SyntaxToken(WHITESPACE, position, self._skip(_SOME_SPACES, position))
        if first in _NAME_STARTS or first == '"':
            return self._name(position)
        if first in _DIGITS or (first == "." and self.at(position + 1) in _DIGITS and self.at(position + 1)):
            return self._number(position)
        if first == "'":
            return self._string(position, STRING)
        if first == "$":
            name = self._name(position + 1, are_keywords=False)
            kind = PARAMETER if name.kind == IDENTIFIER else name.kind
            return SyntaxToken(kind, position, name.end, f"${name.text}")
        return self._sign(position)

    def regex(self, position: int) -> SyntaxToken:
        """Return the regular expression whose slash is at a position. Raises ParseError."""
        found, end = [], position + 1
        while (character := self.at(end)) != "/":
            if not character or character == "\n":
                raise self.error("bad regex: ", position - 1)
            if character == "\\" and self.at(end + 1) == "/":
                character, end = "/", end + 1
            found.append(character)
            end += 1
        return SyntaxToken(REGEX, position, end + 1, "".join(found))

    def _skip(self, characters: re.Pattern[str], position: int) -> int:
        """Return the position after the characters of this kind that begin at a position."""
        found = characters.match(self.text, position)
        return position if found is None else found.end()

    def _name(self, position: int, *, are_keywords: bool = True) -> SyntaxToken:
        end = self._skip(_NAME, position)
        if self.at(end) == '"':
            quoted = self._string(end, IDENTIFIER)
            return quoted._replace(start=position if quoted.kind == IDENTIFIER else quoted.start)
        name = self.text[position:end]
        if are_keywords and name.upper() in KEYWORDS:
            return SyntaxToken(name.upper(), position, end)
        return SyntaxToken(IDENTIFIER, position, end, name)

    def _string(self, position: int, kind: str) -> SyntaxToken:
        quote, end = self.text[position], position + 1
        found: list[str] = []
        while (character := self.at(end)) != quote:
            if not character or character == "\n":
                return SyntaxToken(BAD_STRING, position, end, "".join(found))
            if character == "\\":
                escaped = self.at(end + 1)
                if escaped not in _ESCAPES:
                    return SyntaxToken(BAD_ESCAPE, end + 1, end + 2, character + escaped)
                character, end = _ESCAPES[escaped], end + 1
            found.append(character)
            end += 1
        return SyntaxToken(kind, position, end + 1, "".join(found))

    def _number(self, position: int) -> SyntaxToken:
        end = self._skip(_SOME_DIGITS, position)
        if self.at(end) == ".":
            whole = self.text[position:end]
            behind = self._skip(_SOME_DIGITS, end + 1)
            # `1.` is the number 1: InfluxDB drops a decimal point without digits after it.
            return SyntaxToken(NUMBER, position, behind, self.text[position:behind] if behind > end + 1 else whole)
        if self.at(end) in _LETTERS | {"µ"} and self.at(end):
            behind = self._skip(_DURATION, end)
            return SyntaxToken(DURATION, position, behind, self.text[position:behind])
        return SyntaxToken(INTEGER, position, end, self.text[position:end])

    def _sign(self, position: int) -> SyntaxToken:
        if self.text.startswith("--", position):
            end = self.text.find("\n", position)
            return SyntaxToken(COMMENT, position, len(self.text) if end < 0 else end + 1)
        if self.text.startswith("/*", position):
            end = self.text.find("*/", position + 2)
            return (
                SyntaxToken(ILLEGAL, position, len(self.text)) if end < 0 else SyntaxToken(COMMENT, position, end + 2)
            )
        for sign in (self.text[position : position + 2], self.text[position]):
            if sign in _SIGNS:
                return SyntaxToken("!=" if sign == "<>" else sign, position, position + len(sign))
        return SyntaxToken(ILLEGAL, position, position + 1, self.text[position])


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h30m` and `500ms`. Raises ParseError."""
    total, position = 0, 0
    while position < len(text):
        part = _DURATION_PART.match(text, position)
        if part is None:
            raise ParseError("invalid duration")
        total += int(part[1][:20]) * DURATION_UNITS[part[2]]
        if total > LONGEST_DURATION:
            raise ParseError(f"overflowed duration {part[0]}: choose a smaller duration or INF")
        position = part.end()
    return total


def format_duration(nanoseconds: int) -> str:
    """Return a duration as text, in the longest unit that divides it evenly."""
    if nanoseconds == 0:
        return "0s"
    unit, length = next((unit, length) for unit, length in DURATION_UNITS.items() if nanoseconds % length == 0)
    return f"{nanoseconds // length}{unit}"

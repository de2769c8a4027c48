"""Match regular expressions in Go's syntax, which is the syntax of RE2.

RE2 matches names, in time linear in the length of the text. PostgreSQL matches the values in logs. Its syntax differs,
so patterns are translated for it. Character classes contain ASCII characters only, as in Go, in every locale.
"""

import re
from functools import lru_cache
from typing import Any

import re2

from factory_logs.influxql.errors import InfluxqlError

MAX_MEMORY_BYTES = 8 * 1024 * 1024
MOST_REPEATS = 255
"""The maximum repeat count in PostgreSQL."""

_GO_WORDS = (
    ("missing ):", "missing closing ):"),
    ("missing ]:", "missing closing ]:"),
    ("bad repetition operator:", "invalid nested repetition operator:"),
    ("no argument for repetition operator:", "missing argument to repetition operator:"),
    ("invalid repetition size:", "invalid repeat count:"),
    ("invalid perl operator:", "invalid or unsupported Perl syntax:"),
    ("trailing \\", "trailing backslash at end of expression:"),
)
_CLASSES = {
    "d": "0-9",
    "w": "0-9A-Za-z_",
    "s": "\\t\\n\\f\\r ",
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": "\\u0001-\\u007F",
    "blank": "\\t ",
    "cntrl": "\\u0001-\\u001F\\u007F",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": "!-/:-@\\[-`{-~",
    "space": "\\t\\n\\v\\f\\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_CONSTRAINTS = {"b": "\\y", "B": "\\Y", "A": "\\A", "z": "\\Z"}
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_REPEAT = re.compile(r"\{(0|[1-9][0-9]{0,8})(?:(,)(0|[1-9][0-9]{0,8})?)?\}")
"""RE2 reads braces with a longer number, or with leading zeros, as text."""
_FLAGS = re.compile(r"\(\?([imsU]*)(?:-([imsU]+))?\)")
_GROUP = re.compile(r"\(\?(?:P?<\w+>|:)")
_CODE = re.compile(r"\\(?:x\{([0-9A-Fa-f]+)\}|x([0-9A-Fa-f]{2})|([0-7]{3}))")


@lru_cache(maxsize=500)
def compiled(pattern: str) -> Any:
    """Return the compiled RE2 pattern. Raises InfluxqlError with Go's message."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MAX_MEMORY_BYTES
    try:
        return re2.compile(pattern, options=options)
    except re2.error as error:
        raise InfluxqlError(_go_message(error, pattern)) from None


def _go_message(error: Exception, pattern: str) -> str:
    text = error.args[0].decode("utf-8", "replace") if error.args and isinstance(error.args[0], bytes) else str(error)
    for ours, theirs in _GO_WORDS:
        if text.startswith(ours):
            text = theirs + text.removeprefix(ours)
            break
    what, separator, part = text.partition(": ")
    return f"error parsing regexp: {what}: `{part if separator else ''}`"


def matches(pattern: str, text: str) -> bool:
    """Return whether the pattern is found anywhere in the text. Raises InfluxqlError for an invalid pattern."""
    return compiled(pattern).search(text) is not None


@lru_cache(maxsize=500)
def postgresql_pattern(pattern: str) -> str:
    """Return the pattern in PostgreSQL's syntax. Raises InfluxqlError if PostgreSQL cannot express it."""
    compiled(pattern)
    return _Translation(pattern).translated()


class _Translation:
    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._position = 0
        self._flags: set[str] = set()

    def translated(self) -> str:
        while (flags := _FLAGS.match(self._pattern, self._position)) is not None:
            self._flags |= set(flags[1])
            self._flags -= set(flags[2] or "")
            self._position = flags.end()
        parts = []
        while self._position < len(self._pattern):
            parts.append(self._next())
        options = ("i" if "i" in self._flags else "") + ("w" if "m" in self._flags else "")
        return (f"(?{options})" if options else "") + "".join(parts)

    def _take(self, length: int = 1) -> str:
        taken = self._pattern[self._position : self._position + length]
        self._position += length
        return taken

    def _next(self) -> str:
        here = self._pattern[self._position]
        match here:
            case "\\":
                return self._escape()
            case "[":
                return self._bracket()
            case ".":
                self._take()
                return "." if "s" in self._flags else "[^\\n]"
            case "{":
                return self._repeat()
            case "(" if self._pattern.startswith("(?", self._position):
                return self._group()
            case "*" | "+" | "?":
                self._take()
                self._skip_lazy()
                return here
        return self._take()

    def _skip_lazy(self) -> None:
        if self._pattern.startswith("?", self._position):  # the length of a match is irrelevant
            self._take()

    def _repeat(self) -> str:
        found = _REPEAT.match(self._pattern, self._position)
        if found is None:
            self._take()
            return "\\{"
        if max(int(found[1]), int(found[3] or 0)) > MOST_REPEATS:
            raise InfluxqlError(f"a repeat count over {MOST_REPEATS} is not supported: `{found[0]}`")
        self._position = found.end()
        self._skip_lazy()
        return found[0]

    def _group(self) -> str:
        group = _GROUP.match(self._pattern, self._position)
        if group is None:
            raise self._unsupported("a flag after the beginning of a regular expression")
        self._position = group.end()
        return "(?:"

    def _escape(self) -> str:
        code = self._code()
        if code is not None:
            return _quoted(code)
        following = self._take(2)[1]
        if following == "Q":
            return "".join(map(_quoted, self._quotation()))
        if following in _CONSTRAINTS:
            return _CONSTRAINTS[following]
        if following in _CONTROLS:
            return _quoted(_CONTROLS[following])
        if following in "dws":
            return f"[{_CLASSES[following]}]"
        if following in "DWS":
            return f"[^{_CLASSES[following.lower()]}]"
        if following.isalnum():
            raise self._unsupported(f"\\{following}")
        return _quoted(following)

    def _code(self) -> str | None:
        """Return the character that a code such as `\\x41` names, and advance past it."""
        found = _CODE.match(self._pattern, self._position)
        if found is None:
            return None
        self._position = found.end()
        number = int(found[3], 8) if found[3] else int(found[1] or found[2], 16)
        if not 0 < number < 0x110000 or 0xD800 <= number < 0xE000:
            raise self._unsupported("a character that a log cannot contain")
        return chr(number)

    def _quotation(self) -> str:
        end = self._pattern.find("\\E", self._position)
        if end < 0:
            return self._take(len(self._pattern))
        text = self._take(end - self._position)
        self._take(2)
        return text

    def _bracket(self) -> str:
        parts = [self._take()]
        if self._pattern.startswith("^", self._position):
            parts.append(self._take())
        is_first = True
        while is_first or not self._pattern.startswith("]", self._position):
            parts.append(self._member())
            is_first = False
        self._take()
        return "".join(parts) + "]"

    def _member(self) -> str:
        if self._pattern.startswith("[:", self._position):
            end = self._pattern.index(":]", self._position)
            name = self._take(end + 2 - self._position)[2:-2]
            if name not in _CLASSES:
                raise self._unsupported(f"[:{name}:]")
            return _CLASSES[name]
        if not self._pattern.startswith("\\", self._position):
            member = self._take()
            return member if member == "-" else _quoted(member)
        code = self._code()
        if code is not None:
            return _quoted(code)
        following = self._take(2)[1]
        if following in "dws":
            return _CLASSES[following]
        if following in _CONTROLS:
            return _quoted(_CONTROLS[following])
        if following.isalnum():
            raise self._unsupported(f"\\{following} in a character class")
        return _quoted(following)

    def _unsupported(self, what: str) -> InfluxqlError:
        return InfluxqlError(f"{what} is not supported: `{self._pattern}`")


def _quoted(character: str) -> str:
    """Return a character escaped so that PostgreSQL matches it literally."""
    if character.isalnum() or character in " _" or ord(character) > 127:
        return character
    return f"\\{character}" if character.isprintable() else f"\\u{ord(character):04X}"

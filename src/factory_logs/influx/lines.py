"""Cutting text into lines of line protocol as it arrives: a line end inside a quoted string is none.

A quote opens a string only where a field's value begins; in names it is a character like any other. Only a line with
a quote in it needs a look inside, and each character is looked at a fixed number of times, however a string is split.
"""

import re
from collections.abc import Iterator

_IN_STRING = r'(?:\\["\\]|[^"])*+'
_VALUE = rf'(?:"{_IN_STRING}"|[^", ]*+)'
_NAME = r"(?:\\[,= ]|[^,= ])*+"
_OPENS = rf'(?:{_NAME}={_VALUE},)*+{_NAME}="{_IN_STRING}\Z'
_ENDS_OPEN = re.compile(rf" *+(?:\\[,= ]|[^ ])++ ++{_OPENS}")
_STAYS_OPEN = re.compile(rf"{_IN_STRING}\Z")
_OPENS_AGAIN = re.compile(rf'{_IN_STRING}",{_OPENS}')

NumberedLine = tuple[int, str]


class LineSplitter:
    """Takes text in pieces and gives whole lines, each with its number from 1; comments and blank lines are left out.

    A line that holds line ends counts as many. A line over `max_characters` is given cut off, longer by one, so that
    memory stays bounded and whoever reads it can refuse it. With `keep_comments` those are given too.
    """

    def __init__(self, max_characters: int, *, keep_comments: bool = False) -> None:
        self._keep_comments = keep_comments
        self._longest = max_characters + 1
        self._rest = ""
        self._cut_off = False
        self._open: list[str] = []
        self._open_characters = 0
        self._number = 1
        self.gave_comments = False
        """Whether there was a comment since the last call of `feed`."""

    def feed(self, text: str) -> list[NumberedLine]:
        """The lines that are now whole."""
        self.gave_comments = False
        pieces = text.split("\n")
        pieces[0] = self._rest + pieces[0]
        self._rest = pieces.pop()
        lines: list[NumberedLine] = []
        for piece in pieces:
            if self._open:
                self._continue(piece, lines)
            elif (
                piece[:1].isalnum()
                and piece[-1] != "\r"
                and ('"' not in piece or _is_surely_closed(piece))
                and not self._cut_off
            ):
                lines.append((self._number, piece))  # as nearly all lines are
                self._number += 1
            elif '"' in piece and _ends_open(piece):
                self._open, self._open_characters = [piece], len(piece)
            else:
                self._finish_line(piece, 1, lines)
        self._bound(lines)
        return lines

    def finish(self) -> list[NumberedLine]:
        """The last line, which needs no line end."""
        lines: list[NumberedLine] = []
        rest, self._rest = self._rest, ""
        if self._open:
            self._finish_line("\n".join([*self._open, rest]), len(self._open) + 1, lines)
        else:
            self._finish_line(rest, 1, lines)
        return lines

    def _finish_line(self, line: str, line_ends: int, lines: list[NumberedLine]) -> None:
        if self._cut_off:  # it has been given already
            self._cut_off = False
        elif line and not line.isspace() and (not is_comment(line) or self._keep_comment()):
            lines.append((self._number, line[:-1] if line[-1] == "\r" else line))
        self._number += line_ends
        self._open, self._open_characters = [], 0

    def _keep_comment(self) -> bool:
        self.gave_comments = self._keep_comments
        return self._keep_comments

    def _continue(self, piece: str, lines: list[NumberedLine]) -> None:
        self._open.append(piece)
        self._open_characters += 1 + len(piece)
        if '"' in piece and not _STAYS_OPEN.match(piece) and not _OPENS_AGAIN.match(piece):
            self._finish_line("\n".join(self._open), len(self._open), lines)
        elif self._open_characters >= self._longest:
            self._finish_line("\n".join(self._open)[: self._longest], len(self._open), lines)

    def _bound(self, lines: list[NumberedLine]) -> None:
        if len(self._rest) < self._longest:
            return
        if not self._cut_off and not self._open and not is_comment(self._rest):
            lines.append((self._number, self._rest[: self._longest]))
        self._cut_off, self._rest = True, ""


def _is_surely_closed(line: str) -> bool:
    """Nothing is escaped, and the last quote is none that opens a string: it closes one or is part of a name."""
    return "\\" not in line and line[line.rfind('"') - 1] != "="


def _ends_open(line: str) -> bool:
    """Whether the line ends inside a string, so that the next line belongs to it."""
    return not is_comment(line) and _ENDS_OPEN.match(line) is not None


def is_comment(line: str) -> bool:
    return line.lstrip(" ").startswith("#")


def split_lines(text: str, max_characters: int) -> Iterator[NumberedLine]:
    """All lines of a whole text."""
    splitter = LineSplitter(max_characters)
    yield from splitter.feed(text)
    yield from splitter.finish()

"""Read line protocol while it arrives: split text into lines, and decode the lines of a write into batches of logs and
errors (docs/reference/http-api.md#influxdbs-calls).

A line end inside a quoted string does not end the line. A quote begins a string only at the start of a field's value;
in names it is an ordinary character. Only lines with a quote are searched. Each of their characters is searched a
limited number of times, even if a string arrives in many pieces.
"""

import codecs
import re

from factory_logs.errors import BadRequestError
from factory_logs.influxdb.line_protocol import BEFORE_A_LINE, HEAD, IN_STRING, NAME_CHARACTER
from factory_logs.influxdb.mapping import PointParser
from factory_logs.influxdb.uniform_lines import UniformLineReader
from factory_logs.ingest.batch_collector import Batch, BatchCollector, BatchLimits
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.record_limits import RecordLimits

_Decoder = codecs.getincrementaldecoder("utf-8")
_BROKEN_UTF8 = "surrogateescape"
"""Invalid UTF-8 must only reject its own line. So it is decoded to lone surrogates, which no line may contain."""
_VALUE = rf'(?:"{IN_STRING}"|[^", ]*+)'
_NAME = f"{NAME_CHARACTER}*+"
_OPENS = rf'(?:{_NAME}={_VALUE},)*+{_NAME}="{IN_STRING}\Z'
_ENDS_OPEN = re.compile(rf" *+{HEAD} ++{_OPENS}")
_STAYS_OPEN = re.compile(rf"{IN_STRING}\Z")
_OPENS_AGAIN = re.compile(rf'{IN_STRING}",{_OPENS}')

NumberedLine = tuple[int, str]


class LineSplitter:
    """Splits text that arrives in pieces into complete lines, numbered from 1, without comments and blank lines.

    A line that contains line ends counts as several lines. A line longer than `max_characters` is truncated to one
    character more, so that memory stays limited and the caller can reject the line. With `keep_comments`, comments are
    returned too.
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
        """Whether the last call of `feed` returned comments."""

    def feed(self, text: str) -> list[NumberedLine]:
        """Return the lines that are now complete."""
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
                lines.append((self._number, piece))  # nearly all lines take this branch
                self._number += 1
            elif '"' in piece and not self._cut_off and _ends_open(piece):
                self._open, self._open_characters = [piece], len(piece)
            else:
                self._finish_line(piece, 1, lines)
        self._bound(lines)
        return lines

    def peek(self, text: str) -> str:
        """Return the text of the lines that `feed` would complete, or nothing if a line among them may be too long.

        A line end in a string looks like the end of a line, except at the beginning.
        """
        end = text.rfind("\n")
        if end < 0 or self._open or self._cut_off or len(self._rest) + len(text) >= self._longest:
            return ""
        return self._rest + text[:end]

    def skip(self, text: str, lines: int) -> int:
        """Leave out the lines that `peek` returned. Return the number of the first."""
        self._rest = text[text.rfind("\n") + 1 :]
        first = self._number
        self._number += lines
        return first

    def finish(self) -> list[NumberedLine]:
        """Return the last line, which may have no line end."""
        lines: list[NumberedLine] = []
        rest, self._rest = self._rest, ""
        if self._open:
            self._finish_line("\n".join([*self._open, rest]), len(self._open) + 1, lines)
        else:
            self._finish_line(rest, 1, lines)
        return lines

    def _finish_line(self, line: str, line_ends: int, lines: list[NumberedLine]) -> None:
        if self._cut_off:  # the beginning of this line was already returned
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
        if not self._cut_off and (self._open or not is_comment(self._rest)):
            lines.append((self._number, "\n".join([*self._open, self._rest])[: self._longest]))
        self._number += len(self._open)
        self._open, self._open_characters = [], 0
        self._cut_off, self._rest = True, ""


def _is_surely_closed(line: str) -> bool:
    """Return whether the line certainly does not end inside a string: nothing is escaped, and the last quote does not
    follow a `=`."""
    return "\\" not in line and line[line.rfind('"') - 1] != "="


def _ends_open(line: str) -> bool:
    """Return whether the line ends inside a string, so that the next line continues it."""
    return not is_comment(line) and _ENDS_OPEN.match(line) is not None


def is_comment(line: str) -> bool:
    return line.lstrip(BEFORE_A_LINE).startswith("#")


LINE_CHARACTERS_PER_RECORD_BYTE = 2
"""The factor by which a line may be longer than the largest record, because each quote in a string takes two
characters."""


def max_line_characters(limits: RecordLimits) -> int:
    return LINE_CHARACTERS_PER_RECORD_BYTE * limits.max_record_bytes


def read_only_line(body: bytes | bytearray, limits: RecordLimits, unit_ns: int, now_ns: int) -> NewLog | None:
    """Return the log of a body that is surely one line; None for any other body, and LineProtocolReader must read it.

    Raises BadRequestError if the line is bad.
    """
    line = body.decode(errors=_BROKEN_UTF8).removesuffix("\n")
    if "\n" in line or not line[:1].isalnum() or line[-1] == "\r" or ('"' in line and not _is_surely_closed(line)):
        return None
    return PointParser(limits, unit_ns, now_ns).read(line, max_line_characters(limits))


class LineProtocolReader:
    """Decodes lines into valid logs and errors, each with the number of its line, from 1."""

    piece_bytes = 64 * 1024
    """The size of a piece in bytes, which is some hundred lines."""

    def __init__(self, limits: RecordLimits, batch_limits: BatchLimits, unit_ns: int, now_ns: int) -> None:
        self.max_characters = max_line_characters(limits)
        self._batch_limits = batch_limits
        self._points = PointParser(limits, unit_ns, now_ns)
        self._uniform = UniformLineReader(limits, self.max_characters, unit_ns, now_ns)
        self._splitter = LineSplitter(self.max_characters)
        self._decoder = _Decoder(_BROKEN_UTF8)
        self._collector = BatchCollector(batch_limits)
        self._line_ends = 0
        self._ends_open = False
        self.is_empty = True

    @property
    def all_timed(self) -> bool:
        """Return whether each line so far had a time, so that the same text always results in the same logs."""
        return not (self._points.used_now or self._uniform.used_now)

    def take(self) -> Batch:
        """Return the logs and errors that were decoded since the last call."""
        return self._collector.take()

    def read(self, data: bytes) -> None:
        """Decode a whole body, instead of `feed` and `finish`. Raises TooLargeError."""
        self._batch_limits.check_records(data.count(b"\n") + (data[-1:] not in (b"\n", b"")))
        self.is_empty = not data
        self._read_text(data.decode(errors=_BROKEN_UTF8))
        self._read(self._splitter.finish())

    def feed(self, data: bytes) -> None:
        """Decode more of the body. Raises TooLargeError if it has too many lines, before it decodes them."""
        self._line_ends += data.count(b"\n")
        self._ends_open = data[-1:] != b"\n" if data else self._ends_open
        self._batch_limits.check_records(self._line_ends)
        self.is_empty = self.is_empty and not data
        self._read_text(self._decoder.decode(data))

    def finish(self) -> None:
        """Decode the last line, which may have no line end."""
        self._batch_limits.check_records(self._line_ends + self._ends_open)
        self._read_text(self._decoder.decode(b"", final=True))
        self._read(self._splitter.finish())

    def _read_text(self, text: str) -> None:
        """Decode the lines that are now complete."""
        whole = self._splitter.peek(text)
        logs = self._uniform.read_text(whole) if whole else None
        if logs is None:
            self._read(self._splitter.feed(text))
            return
        first = self._splitter.skip(text, len(logs))
        self._collector.add_all(logs, range(first, first + len(logs)))

    def _read(self, lines: list[NumberedLine]) -> None:
        uniform = self._uniform.read([line for _, line in lines])
        for logs, indexes in uniform.logs:
            self._collector.add_all(logs, [lines[index][0] for index in indexes])
        for index in uniform.others:
            self._read_line(*lines[index])

    def _read_line(self, number: int, line: str) -> None:
        try:
            self._collector.add(self._points.read(line, self.max_characters), number)
        except BadRequestError as error:
            self._collector.reject(error, number)

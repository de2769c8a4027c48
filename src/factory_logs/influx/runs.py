"""Lines of a dump that follow each other and begin alike: most of an export, which is written series by series.

An export of InfluxDB names series and field in each line again. A run names them once, so that its lines can be dealt
out, kept and read together (`spill`, `columns`).
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from factory_logs.influx.line_protocol import LineError, split_head
from factory_logs.influx.lines import NumberedLine

_PLAIN_KEY = re.compile(r'([^,= "\\]++)=')
_TIME_AT_END = re.compile(r" (-?[1-9][0-9]*+)\Z")
_ANY_TIME = re.compile(r"-?[0-9]{1,40}")
_NEVER = "\n"
"""No line begins with a line end, and no time has one."""


class Run(NamedTuple):
    """Lines of one series with consecutive numbers from `number`; with a `key` each begins with this field.

    `text` is what stands after the head, or after `key=`, of each line, with line ends between them.
    """

    context: str
    head: str
    key: str
    number: int
    length: int
    text: str

    @property
    def rests(self) -> list[str]:
        """What `text` holds of each line; the strings of a line that is alone may have line ends of their own."""
        return [self.text] if self.length == 1 else self.text.split("\n")

    def after_head(self) -> Iterator[NumberedLine]:
        """The fields and the time of each line."""
        begin = f"{self.key}=" if self.key else ""
        for number, rest in enumerate(self.rests, self.number):
            yield number, begin + rest

    def lines(self) -> Iterator[NumberedLine]:
        """The lines as they stand in the dump, but for spaces."""
        for number, rest in self.after_head():
            yield number, f"{self.head} {rest}".rstrip(" ")


def cut(context: str, lines: Sequence[NumberedLine], slice_digits: int) -> list[tuple[Run, str]]:
    """The runs of some lines of one context, each with the slice of time that all its lines are in.

    A slice are the times that agree but for their last `slice_digits` digits, whatever way they are written. A line
    without a good time may be in any, as it will be refused.
    """
    found: list[tuple[Run, str]] = []
    head = key = ""
    prefix, run_slice, rests = _NEVER, "", list[str]()
    first, skipped, start, end = 0, 0, 0, -slice_digits or None
    # Whether each line is one, and none is left out between them.
    even = bool(lines) and lines[-1][0] - lines[0][0] == len(lines) - 1 and "\n" not in lines[-1][1]
    for number, line in lines:
        if (
            line.startswith(prefix)
            and line[start:end] == run_slice
            and line[-1] != " "
            and (even or (number == first + len(rests) and "\n" not in line))
        ):
            rests.append(line[skipped:])
            continue
        if rests:
            found.append((Run(context, head, key, first, len(rests), "\n".join(rests)), run_slice))
        first = number
        head, rest = _head_and_rest(line)
        time = _TIME_AT_END.search(rest)
        run_slice = f" {time[1] if time else _time_of(rest)}"[:end]
        begin, prefix = _PLAIN_KEY.match(rest), _NEVER
        if begin is None:
            key, rests = "", [rest]
            continue
        key, rests = begin[1], [rest[begin.end() :]]
        if time and len(time[1]) > slice_digits and "\n" not in line:
            start, prefix, skipped = -len(time[0]), f"{head} {begin[0]}", len(head) + 1 + begin.end()
    if rests:
        found.append((Run(context, head, key, first, len(rests), "\n".join(rests)), run_slice))
    return found


def _head_and_rest(line: str) -> tuple[str, str]:
    try:
        return split_head(line)
    except LineError:
        return line, ""


def _time_of(rest: str) -> str:
    """A time that is not written as InfluxDB does, such as with zeros before it."""
    time = rest[rest.rfind(" ") + 1 :]
    return str(int(time)) if _ANY_TIME.fullmatch(time) else time

"""Recognise a head that repeats the previous one of its connection, so that it is not parsed again.

A client that keeps its connection sends the same head with each write, apart from the number in Content-Length. Parsing
it takes a fifth of a worker's time for a single write (docs/explanation/hot-path.md). Equal bytes have an equal
meaning, so comparing them is enough.
"""

from typing import Any, NamedTuple

from uvicorn._types import HTTPScope

END_OF_HEAD = b"\r\n\r\n"
_CONTENT_LENGTH = b"\r\ncontent-length: "


class Repeated(NamedTuple):
    """A request whose head repeats another one. Its scope still needs its own `state`."""

    scope: HTTPScope
    body: bytes


class ParsedHead:
    """The head of a request that was parsed: its bytes before and after the number in Content-Length, and its scope."""

    __slots__ = ("_after", "_before", "_index", "_scope", "notes")

    def __init__(self, before: bytes, after: bytes, scope: HTTPScope, index: int) -> None:
        """`index` is the position of Content-Length in the headers of the scope."""
        self._before = before
        self._after = after
        self._scope = scope
        self._index = index
        self.notes: dict[object, Any] = {}
        """Notes of the application about the head."""

    def match(self, data: bytes) -> Repeated | None:
        """Return the request if the bytes are a whole request with this head, or None."""
        start = data.find(END_OF_HEAD) + len(END_OF_HEAD)
        length = b"%d" % (len(data) - start)
        if not data.startswith(b"%b%b%b" % (self._before, length, self._after)):
            return None
        scope: Any = self._scope.copy()
        scope["headers"] = headers = scope["headers"].copy()
        headers[self._index] = (b"content-length", length)
        return Repeated(scope, data[start:])


def parsed_head(request: bytes, body: bytes | bytearray, scope: HTTPScope) -> ParsedHead | None:
    """Return the head of a whole request that the parser has read, or None if its body has another framing than a usual
    Content-Length."""
    start = request.find(END_OF_HEAD) + len(END_OF_HEAD)
    length = b"%d" % len(body)
    found = request[:start].lower().find(b"%b%b\r\n" % (_CONTENT_LENGTH, length))
    if found == -1 or len(request) - start != len(body):
        return None
    number = found + len(_CONTENT_LENGTH)
    headers = list(scope["headers"])
    index = headers.index((b"content-length", length))
    return ParsedHead(request[:number], request[number + len(length) : start], {**scope, "headers": headers}, index)

"""One request and its response, with a shortcut for a small body and a whole response.

ASGI passes bodies and responses as messages, with a coroutine and a dict for each. The body also needs a timer, and
uvicorn searches each header of the response twice with a regular expression. `python -m benchmarks.hot_path` compares
both ways (docs/explanation/hot-path.md). The shortcut exists only if no layer has wrapped `receive` or `send`, so a
layer that must see the messages sees all of them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from starlette.types import ASGIApp, Receive, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle


class Exchange(RequestResponseCycle):
    """uvicorn's cycle of a request and its response, with methods that read a whole body, or send a whole response, in
    one call."""

    start_task: Callable[[ASGIApp], None]
    """Runs an application for this request in a task."""
    head_notes: dict[object, Any] | None = None
    """Notes of the application about the head. Requests that repeat the head share them; None if no request can
    repeat it."""

    def whole_body(self) -> bytes | None:
        """Return the body if all of it has arrived and no part of it was received yet, else None; then call
        `receive`."""
        if self.more_body or self.waiting_for_100_continue or self.disconnected or self.response_complete:
            return None
        if not self.message_event.is_set():  # a part of the body was already received
            return None
        self.message_event.clear()
        self.flow.resume_reading()
        body, self.body = bytes(self.body), bytearray()
        return body

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes | memoryview) -> bool:
        """Send a whole response that is not an error. Return False if only `send` can do it: the response is an error,
        which may end the connection, or the client must first read earlier responses.

        The names are in lower case, and the headers contain the Content-Length if the status has a body, and no
        Connection or Transfer-Encoding. Raises RuntimeError for a header that contains a line end.
        """
        if status >= 400 or self.flow.write_paused or self.response_started:
            return False
        if self.disconnected:
            return True
        lines = [STATUS_LINE[status][:-2], *map(b": ".join, self.default_headers), *map(b": ".join, headers)]
        if not self.keep_alive:
            lines.append(b"connection: close")
        lines.append(b"\r\n")
        head = b"\r\n".join(lines)
        line_ends = len(lines)
        if head.count(b"\n") != line_ends or head.count(b"\r") != line_ends:
            raise RuntimeError("A header of the response contains a line end")
        self.response_started = self.response_complete = True
        self.waiting_for_100_continue = False
        self.transport.write(b"".join((head, body)))
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
        return True


def find_exchange(channel: Receive | Send) -> Exchange | None:
    """Return the exchange that this `receive` or `send` belongs to; None if a layer has wrapped it, or under another
    server."""
    owner: Any = getattr(channel, "__self__", None)
    return owner if isinstance(owner, Exchange) else None

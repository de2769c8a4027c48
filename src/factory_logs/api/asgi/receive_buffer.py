"""Keep the received bytes of a connection until the parser may read them.

The parser reads one request at a time, so that pipelined requests use only the memory of their bytes. So the bytes are
divided where a request may end.
"""

from uvicorn.protocols.http.flow_control import FlowControl

from factory_logs.api.asgi.parsed_head import END_OF_HEAD


class PipelinedBytes:
    """The bytes that the connections of a worker keep until their earlier requests have a response, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0

    def take(self, size: int) -> bool:
        """Add bytes. Return False, and add nothing, if they would be over the limit."""
        if self._size + size > self._limit:
            return False
        self._size += size
        return True

    def give_back(self, size: int) -> None:
        self._size -= size


class ReceiveBuffer:
    """The bytes of a connection that have arrived and are not parsed yet."""

    def __init__(self, pipelined: PipelinedBytes) -> None:
        self._pipelined = pipelined
        self._bytes = b""
        self._position = 0
        """The number of bytes that are parsed."""
        self._tail = b""
        """The last parsed bytes, because the empty line that ends a head may begin in them."""
        self._kept = 0
        """The number of bytes that count towards the limit of the worker."""
        self.body_left = 0
        """The number of missing bytes of a body with a known length."""

    def __len__(self) -> int:
        return len(self._bytes) - self._position

    def append(self, data: bytes) -> None:
        self._bytes += data

    def keep(self) -> bool:
        """Count the bytes towards the limit of the worker. Return False if they are over it."""
        if not self._kept:
            if not self._pipelined.take(len(self._bytes)):
                return False
            self._kept = len(self._bytes)
        return True

    def clear(self) -> None:
        """Forget all bytes."""
        self._bytes, self._position = b"", 0
        if self._kept:
            self._pipelined.give_back(self._kept)
            self._kept = 0

    def next_part(self, *, in_body: bool) -> bytes:
        """Return the next bytes for the parser. They end where the request ends, if its end has arrived.

        A part is one of these: a whole request of known length if nothing follows it, a body of known length, the bytes
        up to the next empty line, or else all bytes. `in_body` means that they begin in the body of a request.
        """
        start, size = self._position, len(self._bytes)
        if self.body_left:
            self._position = min(start + self.body_left, size)
            self.body_left -= self._position - start
            return self._bytes[start : self._position]
        end = self._end_of_head(start)
        self._position = size if end is None or (not in_body and self._ends_in_body(start, end, size)) else end
        part = self._bytes[start : self._position]
        self._tail = (self._tail + part[-3:])[-3:] if end is None else b""
        return part

    def put_back(self, size: int) -> None:
        """Take back the last bytes of a part that the parser has not read."""
        self._position -= size

    def _ends_in_body(self, start: int, end: int, size: int) -> bool:
        """Return whether the bytes are exactly one request.

        Only the usual spellings of Content-Length are recognised. A wrong False is harmless: the head and the body
        become two parts, so the parser is called twice.
        """
        length = size - end
        return length > 0 and (
            self._bytes.find(b"\r\nContent-Length: %d\r\n" % length, start, end) != -1
            or self._bytes.find(b"\r\ncontent-length: %d\r\n" % length, start, end) != -1
        )

    def _end_of_head(self, start: int) -> int | None:
        """Return the index after the next empty line in the received bytes. The line may begin in `_tail`."""
        across = (self._tail + self._bytes[start : start + 3]).find(END_OF_HEAD) if self._tail else -1
        if across != -1:
            return start - len(self._tail) + across + len(END_OF_HEAD)
        within = self._bytes.find(END_OF_HEAD, start)
        return None if within == -1 else within + len(END_OF_HEAD)


class Flow(FlowControl):
    """uvicorn's flow control, extended by a hold: reading does not resume until the hold is released."""

    held = False

    def hold(self) -> None:
        self.held = True
        self.pause_reading()

    def release(self) -> None:
        self.held = False
        self.resume_reading()

    def resume_reading(self) -> None:
        if self.read_paused and not self.held:
            super().resume_reading()

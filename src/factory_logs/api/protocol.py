"""uvicorn's HTTP protocol, as this service speaks it; `serve` names it as its `http`.

What is no HTTP at all never reaches the application, so here it is answered in the one body of every error (SPEC 3).
And an answer leaves in one write: uvicorn writes its head and its body apart, and a write is the dearest thing that a
small answer does (docs/hot-path.md).
"""

import asyncio
import secrets
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

GATHERED_BYTES = 64 * 1024


class JsonHttpProtocol(HttpToolsProtocol):
    """uvicorn's protocol with JSON for an unreadable request, and one write for an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(GatheringTransport(transport))  # type: ignore[arg-type]

    def send_400_response(self, msg: str) -> None:
        """Answer, and close the connection: where the next request begins is not known."""
        body = orjson.dumps({"message": msg, "request_id": secrets.token_hex(8)})
        head = f"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n"
        self.transport.write(head.encode() + b"connection: close\r\n\r\n" + body)
        self.transport.close()


class GatheringTransport:
    """A transport that gathers what is written in one turn of the event loop, up to a bound, and writes it at once."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size >= GATHERED_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            data, self._parts, self._size = b"".join(self._parts), [], 0
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

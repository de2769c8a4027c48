"""Compressed answers, by `Accept-Encoding`."""

import asyncio
import zlib
from typing import Protocol

import zstandard
from fastapi import Request
from starlette.responses import Response

from factory_logs.api.accepting import preferred
from factory_logs.api.answers import JsonAnswer
from factory_logs.settings import Settings

VARY = {"Vary": "Accept, Accept-Encoding"}
"""Of all answers that might have come in another form."""
GZIP_LEVEL = 4
ZSTD_LEVEL = 3
LARGE_BYTES = 64 * 1024
"""A larger body is compressed in a thread, so that it does not keep other requests waiting."""
_GZIP_WINDOW = zlib.MAX_WBITS | 16


class Encoder(Protocol):
    """Compresses a stream part by part; what comes out of a part can be read at once."""

    name: str

    def feed(self, part: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class _Gzip:
    name = "gzip"

    def __init__(self) -> None:
        self._packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def feed(self, part: bytes) -> bytes:
        return self._packer.compress(part) + self._packer.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._packer.flush()


class _Zstd:
    name = "zstd"

    def __init__(self) -> None:
        self._packer = zstandard.ZstdCompressor(ZSTD_LEVEL).compressobj()

    def feed(self, part: bytes) -> bytes:
        return self._packer.compress(part) + self._packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._packer.flush()


_ENCODERS: dict[str, type[_Zstd | _Gzip]] = {"zstd": _Zstd, "gzip": _Gzip}
"""Where the caller takes both alike, the first one."""


def encoder(request: Request) -> Encoder | None:
    """The one that the caller prefers; None for an answer as it is."""
    name = preferred(request.headers.get("accept-encoding", ""), [*_ENCODERS, "identity"])
    return _ENCODERS[name]() if name in _ENCODERS else None


async def compressed(
    request: Request, body: bytes, settings: Settings, headers: dict[str, str] | None = None
) -> Response:
    """A JSON answer, compressed where it is large and the caller takes that."""
    headers = VARY | (headers or {})
    chosen = encoder(request) if len(body) >= settings.compress_min_bytes else None
    if chosen is not None:
        headers["Content-Encoding"] = chosen.name
        body = await asyncio.to_thread(_whole, chosen, body) if len(body) > LARGE_BYTES else _whole(chosen, body)
    return JsonAnswer(body, headers=headers)


def _whole(chosen: Encoder, body: bytes) -> bytes:
    return chosen.feed(body) + chosen.finish()

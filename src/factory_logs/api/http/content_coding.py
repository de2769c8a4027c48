"""HTTP content coding (docs/reference/http-api.md#compression).

Decompresses request bodies by `Content-Encoding`, compresses responses by `Accept-Encoding`, and reads the weights in
`Accept` and `Accept-Encoding`.

A few bytes can decompress to gigabytes. So a decoder returns little more than the limit in each step, and its caller
checks the size after each step. Each gzip member or zstd frame costs time, even an empty one, so their number is
limited. So is the ratio of decompressed to compressed size (setting `max_compression_ratio`).
"""

import asyncio
import zlib
from collections.abc import Iterator, Sequence
from typing import Protocol

import zstandard
from fastapi import Request
from starlette.responses import Response

from factory_logs.api.http.responses import JsonResponse
from factory_logs.errors import BadRequestError, TooLargeError, UnsupportedMediaTypeError
from factory_logs.settings import Settings

ENCODINGS = ("identity", "gzip", "zstd")
"""The supported values of `Content-Encoding`."""
VARY = {"Vary": "Accept, Accept-Encoding"}
"""The header of each response that depends on `Accept` or `Accept-Encoding`."""
GZIP_LEVEL = 4
ZSTD_LEVEL = 3
LARGE_BYTES = 64 * 1024
"""Bodies above this size are compressed in a thread, so that other requests do not wait."""
RATIO_FROM_BYTES = 1024 * 1024
"""Bodies up to this decompressed size may have any compression ratio: they cost little."""
_GZIP_WINDOW = zlib.MAX_WBITS | 16
_GZIP_STEP = 256 * 1024
# A zstd block of 4 bytes can decompress to 128 KiB, so a step of this size returns at most 8 MiB.
_ZSTD_STEP = 256
_ZSTD_WINDOW = 8 * 1024 * 1024


class Decoder(Protocol):
    """Decompresses one request body part by part."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Return the decompressed parts of `data`. Raises BadRequestError if the data is damaged, TooLargeError."""
        ...

    def finish(self) -> None:
        """Raise BadRequestError if the body is incomplete."""
        ...


def decoder(content_encoding: str, max_members: int) -> Decoder:
    """Return the decoder for a Content-Encoding. Raises UnsupportedMediaTypeError if it is not supported.

    The decoder rejects a body with more than `max_members` gzip members or zstd frames.
    """
    match content_encoding.strip().lower():
        case "" | "identity":
            return IdentityDecoder()
        case "gzip" | "x-gzip":
            return GzipDecoder(max_members)
        case "zstd":
            return ZstdDecoder(max_members)
        case other:
            raise UnsupportedMediaTypeError(f"Content-Encoding {other!r} is not one of {', '.join(ENCODINGS)}")


def check_ratio(compressed: int, decompressed: int, ratio: int) -> None:
    """Raise TooLargeError if a body has decompressed to more than `ratio` times its bytes so far."""
    if decompressed > max(RATIO_FROM_BYTES, ratio * compressed):
        raise TooLargeError(f"The body unpacks to more than {ratio} times its size")


class IdentityDecoder:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        pass


class _MemberCount:
    """Counts the gzip members or zstd frames of a body."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._count = 1

    def begin_another(self) -> None:
        """Count one more member or frame. Raises TooLargeError if there are too many."""
        self._count += 1
        if self._count > self._most:
            raise TooLargeError(f"The body has more than {self._most} {self._name}")


class GzipDecoder:
    """Decompresses one or more gzip members."""

    def __init__(self, max_members: int) -> None:
        self._member = zlib.decompressobj(_GZIP_WINDOW)
        self._members = _MemberCount("gzip members", max_members)
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._members.begin_another()
                self._member = zlib.decompressobj(_GZIP_WINDOW)
            self._started = True
            try:
                yield self._member.decompress(data, _GZIP_STEP)
            except zlib.error:
                raise BadRequestError("Unable to decode data: the body is not valid gzip") from None
            data = self._member.unconsumed_tail or self._member.unused_data

    def finish(self) -> None:
        if self._started and not self._member.eof:
            raise BadRequestError("Unable to decode data: the gzip body ends too early")


class ZstdDecoder:
    """Decompresses one or more zstd frames."""

    def __init__(self, max_members: int) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = self._context.decompressobj()
        self._members = _MemberCount("zstd frames", max_members)
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_STEP):
            step = data[start : start + _ZSTD_STEP]
            while step:
                if self._frame.eof:
                    self._members.begin_another()
                    self._frame = self._context.decompressobj()
                self._started = True
                try:
                    yield self._frame.decompress(step)
                except zstandard.ZstdError:
                    raise BadRequestError("Unable to decode data: the body is not valid zstd") from None
                step = self._frame.unused_data if self._frame.eof else b""

    def finish(self) -> None:
        if self._started and not self._frame.eof:
            raise BadRequestError("Unable to decode data: the zstd body ends too early")


class Encoder(Protocol):
    """Compresses a stream part by part. The client can decompress each part without the parts after it."""

    name: str

    def feed(self, part: bytes) -> bytes: ...
    def finish(self) -> bytes: ...


class GzipEncoder:
    name = "gzip"

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, _GZIP_WINDOW)

    def feed(self, part: bytes) -> bytes:
        return self._compressor.compress(part) + self._compressor.flush(zlib.Z_SYNC_FLUSH)

    def finish(self) -> bytes:
        return self._compressor.flush()


class ZstdEncoder:
    name = "zstd"

    def __init__(self) -> None:
        self._compressor = zstandard.ZstdCompressor(ZSTD_LEVEL).compressobj()

    def feed(self, part: bytes) -> bytes:
        return self._compressor.compress(part) + self._compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)

    def finish(self) -> bytes:
        return self._compressor.flush()


_ENCODERS: dict[str, type[ZstdEncoder | GzipEncoder]] = {"zstd": ZstdEncoder, "gzip": GzipEncoder}
"""If the client gives both encodings the same weight, the first is used."""


def encoder(request: Request) -> Encoder | None:
    """Return a new encoder for the encoding that the client prefers, or None for an uncompressed response."""
    name = preferred(request.headers.get("accept-encoding", ""), [*_ENCODERS, "identity"])
    return _ENCODERS[name]() if name in _ENCODERS else None


async def compressed(
    request: Request,
    body: bytes,
    settings: Settings,
    headers: dict[str, str] | None = None,
    kind: type[JsonResponse] = JsonResponse,
) -> Response:
    """Return a response with this body, compressed if it is large and the client accepts that."""
    headers = VARY | (headers or {})
    chosen = encoder(request) if len(body) >= settings.compress_min_bytes else None
    if chosen is not None:
        headers["Content-Encoding"] = chosen.name
        body = await asyncio.to_thread(_encode, chosen, body) if len(body) > LARGE_BYTES else _encode(chosen, body)
    return kind(body, headers=headers)


def _encode(chosen: Encoder, body: bytes) -> bytes:
    return chosen.feed(body) + chosen.finish()


def preferred(header: str, offered: Sequence[str]) -> str | None:
    """Return the offered value with the highest weight in the header, or the first of several values with that weight.

    Return None if the header contains none of the offered values. Parts of the header that cannot be parsed are
    ignored.
    """
    best, chosen = (0.0, 0), None
    for part in header.lower().split(","):
        name, *parameters = (text.strip() for text in part.split(";"))
        if name in offered:
            rank = (_weight(parameters), -offered.index(name))
            if rank[0] > 0 and (chosen is None or rank > best):
                best, chosen = rank, name
    return chosen


def _weight(parameters: Sequence[str]) -> float:
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0

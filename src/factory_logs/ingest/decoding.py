"""Content-Encoding of a write: gzip and zstd, decompressed as they arrive and bounded on the way (SPEC 7).

A few bytes can unpack to gigabytes, so no step may give out much more than the limit before it is checked.
"""

import zlib
from collections.abc import Iterator
from typing import Protocol

import zstandard

from factory_logs.errors import BadRequestError, UnsupportedMediaTypeError

ENCODINGS = ("identity", "gzip", "zstd")
_GZIP_WBITS = 31
_GZIP_STEP = 256 * 1024
# One zstd block gives at most 128 KiB and may take as little as 4 bytes, so this step is bounded to 8 MiB.
_ZSTD_STEP = 256
_ZSTD_WINDOW = 8 * 1024 * 1024


class Decoder(Protocol):
    """Unpacks one body, piece by piece."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The pieces that `data` unpacks to. Raises BadRequestError where it is broken."""
        ...

    def finish(self) -> None:
        """Raises BadRequestError where the body ended too early."""
        ...


def decoder(content_encoding: str) -> Decoder:
    """The decoder of a Content-Encoding. Raises UnsupportedMediaTypeError for one that is not read here."""
    match content_encoding.strip().lower():
        case "" | "identity":
            return _Identity()
        case "gzip" | "x-gzip":
            return _Gzip()
        case "zstd":
            return _Zstd()
        case other:
            raise UnsupportedMediaTypeError(f"Content-Encoding {other!r} is not one of {', '.join(ENCODINGS)}")


class _Identity:
    def feed(self, data: bytes) -> Iterator[bytes]:
        yield data

    def finish(self) -> None:
        pass


class _Gzip:
    """One or more gzip members."""

    def __init__(self) -> None:
        self._member = zlib.decompressobj(_GZIP_WBITS)
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = zlib.decompressobj(_GZIP_WBITS)
            self._started = True
            try:
                yield self._member.decompress(data, _GZIP_STEP)
            except zlib.error:
                raise BadRequestError("Unable to decode data: the body is not valid gzip") from None
            data = self._member.unconsumed_tail or self._member.unused_data

    def finish(self) -> None:
        if self._started and not self._member.eof:
            raise BadRequestError("Unable to decode data: the gzip body ends too early")


class _Zstd:
    """One or more zstd frames."""

    def __init__(self) -> None:
        self._context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
        self._frame = self._context.decompressobj()
        self._started = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        for start in range(0, len(data), _ZSTD_STEP):
            step = data[start : start + _ZSTD_STEP]
            while step:
                if self._frame.eof:
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

"""The files that `factory-logs import` reads: their formats, decompression, and the fingerprint that identifies a
file."""

import gzip
import hashlib
import io
import os
import shutil
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, BinaryIO, cast

from factory_logs.cli.output import CommandError, interruptible

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

CHUNK_BYTES = 256 * 1024
COMPRESSIONS = (".gz", ".zst")
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# At zstd's highest ratio, 4 KiB decompress to 128 MiB.
_ZSTD_STEP = 4 * 1024
_ZSTD_WINDOW = 2**31


class Format(StrEnum):
    """The formats of importable files."""

    NDJSON = "ndjson"
    JSON = "json"
    CSV = "csv"
    LINE_PROTOCOL = "lp"
    INFLUX_CSV = "influx-csv"


_FORMATS = {
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
    ".json": Format.JSON,
    ".csv": Format.CSV,
    ".lp": Format.LINE_PROTOCOL,
}


def suffixes(name: str) -> tuple[str, str]:
    """Return the format suffix of a file name and, if present, its compression suffix: `.csv` and `.gz`."""
    path = PurePath(name.lower())
    if path.suffix in COMPRESSIONS:
        return path.with_suffix("").suffix, path.suffix
    return path.suffix, ""


def input_format(name: str, file_format: Format | None) -> Format:
    """Return the given format, or the format of the file's suffix. Raises CommandError if both are
    missing."""
    found = file_format or _FORMATS.get(suffixes(name)[0])
    if found is None:
        raise CommandError(
            f"{name}: the name does not show the format; add --format {', '.join(Format)}".replace(
                ", influx", " or influx"
            )
        )
    return found


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file to import. It is read twice: first for its fingerprint, then for its records.

    `size` is the size when the file was opened. Data that is appended later is not read.
    """

    name: str
    path: Path
    format: Format
    compression: str
    size: int

    def chunks(self, progress: Callable[[int], None] = lambda _: None) -> Iterator[bytes]:
        """Yield the decompressed bytes, without a byte order mark. `progress` is called with the number of bytes read.

        Raises CommandError if the file cannot be decompressed to its end.
        """
        is_first = True
        try:
            with self.path.open("rb") as raw:
                for chunk in self._decompressed(raw):
                    yield chunk.removeprefix(BYTE_ORDER_MARK) if is_first else chunk
                    is_first = False
                    progress(raw.tell())
        except (gzip.BadGzipFile, zlib.error, EOFError):
            kind = "gzip" if self.compression == ".gz" else "zstd"
            raise CommandError(f"{self.name}: the {kind} data is damaged or truncated") from None

    def _decompressed(self, raw: BinaryIO) -> Iterator[bytes]:
        if self.compression == ".zst":
            yield from _zstd_chunks(raw)
            return
        if self.compression == ".gz":
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw))
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk
            return
        while chunk := raw.read(min(CHUNK_BYTES, self.size - raw.tell())):
            yield chunk


def _zstd_chunks(raw: BinaryIO) -> Iterator[bytes]:
    """Yield the decompressed bytes. Raises EOFError for damaged or truncated data."""
    import zstandard

    context = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = None
    while data := raw.read(_ZSTD_STEP):
        while data:
            if frame is None or frame.eof:
                frame = context.decompressobj()
            try:
                chunk = frame.decompress(data)
            except zstandard.ZstdError:
                raise EOFError from None
            if chunk:
                yield chunk
            data = frame.unused_data if frame.eof else b""
    if frame is not None and not frame.eof:
        raise EOFError


@contextmanager
def opened(name: str, file_format: Format | None) -> Iterator[InputFile]:
    """Yield the file. Stdin and pipes, which can be read only once, are copied to a temporary file.

    Raises CommandError if it cannot be read.
    """
    found = input_format(name, file_format)
    shown, compression = ("stdin", "") if name == "-" else (name, suffixes(name)[1])
    try:
        if name != "-" and stat.S_ISREG(os.stat(name).st_mode):
            with open(name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
            yield InputFile(shown, Path(name), found, compression, size)
            return
        with tempfile.NamedTemporaryFile(prefix="factory-logs-import-") as spool:
            with interruptible(), nullcontext(sys.stdin.buffer) if name == "-" else open(name, "rb") as pipe:
                shutil.copyfileobj(pipe, spool)
            spool.flush()
            yield InputFile(shown, Path(spool.name), found, compression, spool.tell())
    except OSError as error:
        if error.filename is None:
            raise
        raise CommandError(f"{name}: {error.strerror}") from None


def changed(name: str, *, is_partly_stored: bool) -> CommandError:
    """Return the error for a file whose second read differs from the first: its fingerprint identifies other
    records."""
    message = f"{name} has changed while it was imported; "
    if is_partly_stored:
        return CommandError(
            message
            + "parts of its earlier content are stored, and an import of the new content stores their records again"
        )
    return CommandError(message + "nothing of it is stored: run the command again when the file is complete")


class Fingerprint:
    """Identifies a file by the SHA-256 of its decompressed bytes and of the options for reading them."""

    def __init__(self, version: bytes, reading: str) -> None:
        """Change `version` if files are divided into parts in a different way."""
        self._digest = hashlib.sha256(version + b"\0" + reading.encode() + b"\0")
        self.size = 0

    def of(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks, and add them to the fingerprint."""
        for chunk in chunks:
            self._digest.update(chunk)
            self.size += len(chunk)
            yield chunk

    def digest(self) -> bytes:
        return self._digest.digest()


class ChunkStream(io.RawIOBase):
    """A file object over chunks of bytes, which can be read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer).cast("B")
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        given = min(len(view), len(self._rest))
        view[:given] = self._rest[:given]
        self._rest = self._rest[given:]
        return given

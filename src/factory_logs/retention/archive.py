"""An archive of logs: a folder that contains compressed parts in NDJSON and a manifest (docs/how-to/archive.md).

The manifest is written last. It contains the name, the number of logs and the SHA-256 of each part. A folder without a
manifest is not an archive.
"""

import asyncio
import hashlib
import io
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import zstandard
from pydantic import BaseModel, Field, ValidationError

from factory_logs import __version__
from factory_logs.embedded.files import flush_folder
from factory_logs.retention.errors import RetentionError

MANIFEST = "manifest.json"
PART_LOGS = 50_000
READ_BYTES = 2**20

Progress = Callable[[int], None]
"""A function that is called with the number of processed logs."""


class ArchivePart(BaseModel):
    """A part: one file of an archive. `sha256` is the hash of the compressed file."""

    file: Annotated[str, Field(pattern=r"^part-[0-9]{5,9}\.ndjson\.zst$")]
    logs: int
    sha256: str


class Manifest(BaseModel):
    """The content of `manifest.json`."""

    format: Literal[1] = 1
    program: str = f"factory-logs {__version__}"
    created_at: datetime
    cutoff: datetime
    q: str | None
    logs: int
    parts: list[ArchivePart]


@dataclass(frozen=True, slots=True)
class Archive:
    """Reads and checks an archive: a folder and its manifest."""

    folder: Path
    manifest: Manifest

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield the position of each log, such as `part-00001.ndjson.zst:7`, and its JSON. Raises RetentionError."""
        for part in self.manifest.parts:
            path = self.folder / part.file
            with _explained(path), path.open("rb") as file:
                unpacked = io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file))
                for number, line in enumerate(unpacked, 1):
                    yield f"{path}:{number}", line.decode().removesuffix("\n")

    def discard(self) -> None:
        """Remove the folder and all its files."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def check(self, progress: Progress) -> None:
        """Read all parts and compare them with the manifest. Raises RetentionError with the difference.

        Each part is read in a thread, so that the worker can serve requests in the meantime.
        """
        logs = 0
        for part in self.manifest.parts:
            logs += await asyncio.to_thread(_checked_logs, self.folder / part.file, part.sha256)
            progress(logs)
        if not logs == self.manifest.logs == sum(part.logs for part in self.manifest.parts):
            raise RetentionError(f"{self.folder} contains {logs} logs, but its {MANIFEST} lists {self.manifest.logs}")


def _checked_logs(path: Path, sha256: str) -> int:
    """Return the number of logs in a part. Raises RetentionError if the file differs from the file that was written."""
    with _explained(path), path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):  # drop the cached pages, so that the file is read from the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        if hashlib.file_digest(file, "sha256").hexdigest() != sha256:
            raise RetentionError(f"{path} is damaged: its SHA-256 differs from the one in {MANIFEST}")
        file.seek(0)
        unpacked = zstandard.ZstdDecompressor().stream_reader(file)
        return sum(block.count(b"\n") for block in iter(lambda: unpacked.read(READ_BYTES), b""))


def open_archive(folder: Path) -> Archive:
    """Return the archive in a folder. Raises RetentionError if the folder contains no archive."""
    path = folder / MANIFEST
    try:
        with _explained(path):
            return Archive(folder, Manifest.model_validate_json(path.read_bytes()))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise RetentionError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None


async def write_archive(
    inside: Path, cutoff: datetime, q: str | None, logs: AsyncIterator[str], progress: Progress
) -> Archive | None:
    """Write lines of NDJSON to a new folder in `inside`, and flush all files to disk. Each text contains one or more
    complete lines.

    The files are written in threads, so that requests to the worker do not wait for a slow disk.

    If there are no lines, nothing is written and the result is None. Raises RetentionError. After an error or a
    cancellation, the incomplete folder is removed.
    """
    more = await anext(logs, None)
    if more is None:
        return None
    now = datetime.now(UTC)
    folder = inside / f"logs-{now:%Y%m%dT%H%M%S.%fZ}"
    with _explained(folder):
        await asyncio.to_thread(_make_folder, folder)
    try:
        parts: list[ArchivePart] = []
        done = 0
        while more is not None:
            path = folder / f"part-{len(parts) + 1:05}.ndjson.zst"
            in_part = 0
            with _explained(path):
                file = await asyncio.to_thread(path.open, "xb")
                try:
                    packed = zstandard.ZstdCompressor(write_checksum=True).stream_writer(file, closefd=False)
                    while more is not None and in_part < PART_LOGS:
                        await asyncio.to_thread(packed.write, more.encode())
                        in_part += more.count("\n")
                        progress(done + in_part)
                        more = await anext(logs, None)
                    await asyncio.to_thread(_finish, packed, file)
                finally:
                    await asyncio.to_thread(file.close)
                digest = await asyncio.to_thread(_sha256, path)
            parts.append(ArchivePart(file=path.name, logs=in_part, sha256=digest))
            done += in_part
        manifest = Manifest(created_at=now, cutoff=cutoff, q=q, logs=done, parts=parts)
        with _explained(folder / MANIFEST):
            await asyncio.to_thread(_write_manifest, folder, manifest)
    except BaseException:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        raise
    return Archive(folder, manifest)


def _make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, so that they survive a power cut. Raises OSError."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(mode=0o700, parents=True)
    for path in missing:
        flush_folder(path.parent)


def _finish(packed: zstandard.ZstdCompressionWriter, file: BinaryIO) -> None:
    """Write the end of a compressed file and flush it to disk. Raises OSError."""
    packed.close()  # type: ignore[no-untyped-call]
    file.flush()
    os.fsync(file.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_manifest(folder: Path, manifest: Manifest) -> None:
    new = folder / f"{MANIFEST}.new"
    with new.open("xb") as file:
        file.write(manifest.model_dump_json(indent=2).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    new.rename(folder / MANIFEST)
    flush_folder(folder)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Raise RetentionError, which names the file, if the file cannot be read or written."""
    try:
        yield
    except OSError as error:
        raise RetentionError(f"{path}: {error.strerror or error}") from None
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise RetentionError(f"{path} is damaged: {error}") from None

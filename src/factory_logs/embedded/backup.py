"""Back up a database with PostgreSQL's own programs, and restore it into a new one (docs/how-to/back-up.md).

A backup is an archive of `pg_dump --format=custom`, so `pg_restore` can also restore it into another server. Both
programs run as the user of this process, which must be root or the server's user, because only these can reach the
socket.
"""

import asyncio
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, BinaryIO

from factory_logs.embedded.errors import EmbeddedPostgresError
from factory_logs.embedded.files import Folder, flush_folder, make_data_dir, open_folder
from factory_logs.embedded.os_user import CLUSTER_FOLDER, check_reachable, server_user
from factory_logs.embedded.server import Server
from factory_logs.embedded.sharing import POSTGRES_LOCK, has_database, held, is_running, open_lock, prepare, running

RESTORING = "restoring"
"""The folder of an incomplete restore, in the data directory."""
RESTORE_LOCK = "restore.lock"
WATCH_SECONDS = 0.2
SHOWN_LINES = 5

Watch = Callable[[], Awaitable[None]]


async def dump(server: Server, file: Path, watch: Watch) -> None:
    """Write a backup of the running server's database. The file is renamed to its final name when it is complete and
    flushed to disk.

    `watch` is called several times a second during the backup. Only the file's owner can read the backup, because it
    contains the hashes of passwords and tokens. Raises EmbeddedPostgresError, also if another backup to this file runs;
    OSError.
    """
    part = file.with_name(f".{file.name}.part")
    with _claimed(part, file):
        try:
            # pg_dump flushes the file before it ends.
            arguments = "--format=custom", "--no-owner", "--no-privileges", f"--dbname={server.url}", f"--file={part}"
            await _run(server, "pg_dump", *arguments, watch=watch)
            part.replace(file)
            flush_folder(file.parent)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


@contextmanager
def _claimed(part: Path, file: Path) -> Iterator[None]:
    """Create the incomplete file of a backup, and hold a lock on it.

    It replaces the file of a killed command, whose pg_dump may still write. Raises EmbeddedPostgresError if a running
    backup holds the lock, OSError.
    """
    with ExitStack() as opened:
        while True:
            before = _open_locked(opened, part, file, os.O_CREAT)
            with suppress(FileNotFoundError):  # the backup that held the lock has ended
                if os.path.samestat(os.fstat(before), os.stat(part, follow_symlinks=False)):
                    break
        new = part.with_name(f"{part.name}.{secrets.token_hex(8)}")
        _open_locked(opened, new, file, os.O_CREAT | os.O_EXCL)
        new.replace(part)
        yield


def _open_locked(opened: ExitStack, path: Path, file: Path, flags: int) -> int:
    descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | flags, 0o600)
    opened.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise EmbeddedPostgresError(f"another backup to {file} is running") from None
    return descriptor


async def contents(server: Server, file: BinaryIO) -> str:
    """Return the table of contents of a backup. Raises EmbeddedPostgresError if the file is not a backup."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        await _run(server, "pg_restore", "--list", stdin=file, stdout=output, watch=_no_watch)
        file.seek(0)
        output.seek(0)
        return output.read()


async def load(server: Server, file: BinaryIO, watch: Watch) -> None:
    """Restore a backup into the running server's empty database. The position in the file shows the progress.

    `watch` is called several times a second during the restore. Raises EmbeddedPostgresError.
    """
    arguments = "--exit-on-error", "--no-owner", "--no-privileges", f"--dbname={server.url}"
    await _run(server, "pg_restore", *arguments, stdin=file, watch=watch)


@contextmanager
def new_database(data_dir: Path, bin_dir: Path | None = None) -> Iterator[Server]:
    """Yield a running server on a new, empty database, which becomes the database of `data_dir` at the end of the
    block.

    `bin_dir` is the folder of PostgreSQL's programs, by default that of the wheel. After an error, all files are
    removed; after a SIGKILL, the next call removes them. Raises EmbeddedPostgresError, also if `data_dir` already has a
    database.
    """
    data_dir = data_dir.expanduser().resolve()
    make_data_dir(data_dir)
    user = server_user(data_dir)
    check_reachable(data_dir, user)
    with open_folder(data_dir, user) as folder, open_lock(folder, RESTORE_LOCK) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EmbeddedPostgresError(f"another restore into {data_dir} is running") from None
        _refuse_database(data_dir)
        _remove(folder, bin_dir)
        folder.make_folder(RESTORING)
        try:
            with running(data_dir / RESTORING, bin_dir=bin_dir):
                yield prepare(data_dir / RESTORING, bin_dir=bin_dir)
            _put_in_place(folder)
        finally:
            _remove(folder, bin_dir)


def _refuse_database(data_dir: Path) -> None:
    if has_database(data_dir):
        raise EmbeddedPostgresError(
            f"there is a database in {data_dir}, and restore does not overwrite a database. Set FACTORY_LOGS_DATA_DIR "
            "to a new "
            f"directory; or stop the service, move {data_dir / CLUSTER_FOLDER} away and restore again"
        )


def _put_in_place(folder: Folder) -> None:
    """Move the complete cluster of a stopped server to its final path, unless a `serve` has created one there
    meanwhile."""
    if is_running(folder.path / RESTORING):
        raise EmbeddedPostgresError(f"PostgreSQL on {folder.path / RESTORING} does not stop")
    with open_lock(folder, POSTGRES_LOCK) as gate, held(gate), folder.folder(RESTORING) as restored:
        _refuse_database(folder.path)
        os.rename(CLUSTER_FOLDER, CLUSTER_FOLDER, src_dir_fd=restored.descriptor, dst_dir_fd=folder.descriptor)
        os.fsync(restored.descriptor)
        os.fsync(folder.descriptor)


def _remove(folder: Folder, bin_dir: Path | None) -> None:
    """Stop the server of a restore that was killed, and remove its folder."""
    incomplete = folder.path / RESTORING
    if is_running(incomplete):
        with running(incomplete, bin_dir=bin_dir):  # the last user stops it when it leaves
            pass
    shutil.rmtree(RESTORING, ignore_errors=True, dir_fd=folder.descriptor)


async def _run(
    server: Server,
    program: str,
    *arguments: str,
    watch: Watch,
    stdin: BinaryIO | int = asyncio.subprocess.DEVNULL,
    stdout: IO[str] | int = asyncio.subprocess.DEVNULL,
) -> None:
    """Run one of PostgreSQL's programs, and end it if the caller is cancelled. Raises EmbeddedPostgresError if it
    fails."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        process = await asyncio.create_subprocess_exec(
            str(server.bin_dir / program), *arguments,
            stdin=stdin, stdout=stdout, stderr=errors, env=server.environment(), umask=0o077,
            start_new_session=True,  # Ctrl-C reaches only this process, which then ends the program
        )  # fmt: skip
        try:
            while not await _has_ended(process):
                await watch()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()
        if process.returncode != 0:
            errors.seek(0)
            reason = "\n".join(errors.read().strip().splitlines()[-SHOWN_LINES:])
            raise EmbeddedPostgresError(reason or f"{program} ended with {process.returncode}")


async def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Wait briefly, and return whether the program has ended."""
    with suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), WATCH_SECONDS)
    return process.returncode is not None


async def _no_watch() -> None:
    pass

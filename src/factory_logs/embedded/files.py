"""Access the files of the data directory safely.

Root reads and writes files in this folder that the server's user can also change. So a folder is opened without
following links on its path, a file is opened relative to its open folder, and only regular files and folders of the
server's user are used.
"""

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from factory_logs.embedded.errors import EmbeddedPostgresError
from factory_logs.embedded.os_user import ServerUser

_SEARCH = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Without O_NONBLOCK, opening a named pipe would wait for the other end of the pipe.
_FILE = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


_NOT_THE_KIND = {errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO}


@dataclass(frozen=True, slots=True)
class Folder:
    """An open folder, and the user who owns the files in it."""

    descriptor: int
    path: Path
    user: ServerUser

    def open(self, name: str, flags: int = os.O_RDWR) -> int:
        """Open a file of the server's user. Raises OSError if it does not exist, EmbeddedPostgresError if another
        user owns it."""
        with self._refusing_links(name):
            descriptor = os.open(name, _FILE | flags, dir_fd=self.descriptor)
        if not self._is_own(os.fstat(descriptor), stat.S_ISREG):
            os.close(descriptor)
            raise self._foreign(name)
        return descriptor

    def make(self, name: str) -> int:
        """Create a file of the server's user. Raises FileExistsError if it exists.

        The file gets its final name after the user owns it, because from then on other processes can open it.
        """
        flags = _FILE | os.O_RDWR | os.O_CREAT | os.O_EXCL
        if not self.user.switch:
            return os.open(name, flags, 0o600, dir_fd=self.descriptor)
        unowned = f"{name}.{secrets.token_hex(8)}"
        descriptor = os.open(unowned, flags, 0o600, dir_fd=self.descriptor)
        try:
            os.fchown(descriptor, self.user.uid, self.user.gid)
            os.link(unowned, name, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor, follow_symlinks=False)
        except OSError:
            os.close(descriptor)
            raise
        finally:
            self.unlink(unowned)
        return descriptor

    def open_or_make(self, name: str) -> int:
        while True:
            with suppress(FileNotFoundError):
                return self.open(name)
            with suppress(FileExistsError):
                return self.make(name)

    @contextmanager
    def folder(self, name: str) -> Iterator["Folder"]:
        """Open a folder of the server's user. Raises the errors of `open`."""
        with self._refusing_links(name):
            descriptor = os.open(name, _FOLDER, dir_fd=self.descriptor)
        try:
            if not self._is_own(os.fstat(descriptor), stat.S_ISDIR):
                raise self._foreign(name)
            yield Folder(descriptor, self.path / name, self.user)
        finally:
            os.close(descriptor)

    def make_folder(self, name: str) -> None:
        """Create a folder that only the server's user may enter. An existing folder must belong to this user."""
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=self.descriptor)
        with self._refusing_links(name):
            descriptor = os.open(name, _FOLDER, dir_fd=self.descriptor)
        try:
            status = os.fstat(descriptor)
            if self.user.switch and status.st_uid == 0 and not os.listdir(descriptor):
                os.fchown(descriptor, self.user.uid, self.user.gid)
            elif not self._is_own(status, stat.S_ISDIR):
                raise self._foreign(name)
            os.fchmod(descriptor, 0o700)
        finally:
            os.close(descriptor)

    def read(self, name: str) -> str:
        with os.fdopen(self.open(name, os.O_RDONLY), errors="replace") as file:
            return file.read()

    def append(self, name: str, text: str) -> None:
        with os.fdopen(self.open(name, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(text)

    def replace(self, name: str, text: str) -> None:
        """Write a new file and rename it, so that the old file stays unchanged if the disk is full."""
        new = f"{name}.new"
        self.unlink(new)
        with os.fdopen(self.make(new), "w") as file:
            file.write(text)
        self.rename(new, name)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)

    def unlink(self, name: str) -> None:
        """Remove a file if it exists. If it is a link, remove the link itself."""
        with suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self.descriptor)

    def _is_own(self, status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
        return is_kind(status.st_mode) and status.st_uid == self.user.uid

    @contextmanager
    def _refusing_links(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _NOT_THE_KIND:
                raise
            raise self._foreign(name) from None

    def _foreign(self, name: str) -> EmbeddedPostgresError:
        user = self.user.name or self.user.uid
        return EmbeddedPostgresError(
            f"{self.path / name} is a link, is of another kind than expected, or does not belong to {user}, the user "
            "of PostgreSQL. Remove it, or correct its owner with chown."
        )


@contextmanager
def open_folder(path: Path, user: ServerUser) -> Iterator[Folder]:
    """Open a folder by its resolved path. Raises OSError, also if a part of the path is a link."""
    descriptor = _open_path(path)
    try:
        yield Folder(descriptor, path, user)
    finally:
        os.close(descriptor)


def make_data_dir(path: Path) -> None:
    """Create a folder and its missing parents. If root creates them, the server's user can enter them."""
    if path.exists():
        return
    if path.parent != path:
        make_data_dir(path.parent)
    parent = _open_path(path.parent)
    try:
        with suppress(FileExistsError):
            os.mkdir(path.name, dir_fd=parent)
            if os.geteuid() == 0:
                made = os.open(path.name, _FOLDER, dir_fd=parent)
                os.fchmod(made, 0o755)
                os.close(made)
    finally:
        os.close(parent)


def _open_path(path: Path) -> int:
    descriptor = os.open(path.anchor, _SEARCH)
    parts = path.parts[1:]
    for number, part in enumerate(parts, 1):
        outer = descriptor
        try:
            descriptor = os.open(part, _FOLDER if number == len(parts) else _SEARCH, dir_fd=outer)
        finally:
            os.close(outer)
    return descriptor


def flush_folder(path: Path) -> None:
    """Flush a folder's list of files to disk, so that a new file survives a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

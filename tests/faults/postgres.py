"""A separate PostgreSQL server for tests, over TCP, that can be killed, stopped, filled, copied and promoted.

It uses the binaries and the user of the embedded server, but the tests start and stop it.
"""

import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from factory_logs.embedded import server, sharing
from factory_logs.embedded.server_log import LOG_FILE
from tests.faults import processes
from tests.serving import free_port

START_SECONDS = 60
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "60",
    "shared_buffers": "64MB",
    "wal_sender_timeout": "5s",
    "log_line_prefix": "%m [%p] ",
}


class RunningServer:
    """A PostgreSQL server that the tests pause and connect to. A subclass sets `url` and `pid`."""

    url: str
    pid: int | None

    def processes(self) -> list[int]:
        """Return the postmaster and all processes that it has started."""
        return [] if self.pid is None else [self.pid, *processes.children(self.pid)]

    def pause(self) -> list[int]:
        """Stop all its processes by SIGSTOP: the connections stay open, and no response comes. `processes.send(...,
        SIGCONT)` ends it."""
        paused: list[int] = []
        # The postmaster may start another process until it has stopped.
        while running := [pid for pid in self.processes() if pid not in paused]:
            processes.send(running, signal.SIGSTOP)
            for pid in running:
                while processes.is_alive(pid) and not processes.is_stopped(pid):
                    time.sleep(0.001)
            paused += running
        return paused

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.url, timeout=60)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await self.connect()
        try:
            yield connection
        finally:
            connection.terminate()


class Cluster(RunningServer):
    """One server in a folder. `create` or `copy` it, then `start`."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, **options: str) -> None:
        self.port = free_port()
        self._server = sharing.prepare(folder)
        self._options = OPTIONS | options
        self._environment = environment or {}

    @property
    def url(self) -> str:
        return f"postgresql://{server.DATABASE}@127.0.0.1:{self.port}/{server.DATABASE}"

    @property
    def folder(self) -> Path:
        return self._server.cluster_dir

    @property
    def log(self) -> str:
        return self._server.end_of_log()

    def create(self) -> None:
        server.init_cluster(self._server)

    def copy(self, folder: Path) -> "Cluster":
        """Return a streaming standby of this running server."""
        standby = Cluster(folder)
        standby.folder.mkdir(mode=0o700)
        os.chown(standby.folder, standby._server.user.uid, standby._server.user.gid)
        made = self._server.run("pg_basebackup", "-R", "-X", "stream", "-D", str(standby.folder), "-d", self.url)
        assert made.returncode == 0, made.stdout
        return standby

    def start(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.try_start():
            assert time.monotonic() < deadline, self.log
            time.sleep(0.2)  # the processes of a killed server may need a moment to end

    def try_start(self) -> bool:
        if self.pid is None:
            server.disown_pid(self._server) if (self.folder / "postmaster.pid").exists() else None
        with self._server.opened() as folder:
            os.close(folder.open_or_make(LOG_FILE))
        options = " ".join(f"-c {name}='{value}'" for name, value in self._options.items())
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self._environment.items():
                patch.setenv(name, value)
            started = self._server.run(
                "pg_ctl", "start", "-w", f"--timeout={START_SECONDS}", "-D", str(self.folder),
                "-l", str(self._server.log_file), "-o", f"-c port={self.port} {options}",
            )  # fmt: skip
        return started.returncode == 0

    def stop(self, mode: str = "fast") -> None:
        self._server.run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.folder))

    def reset_log(self, *arguments: str) -> None:
        """Change counters of the stopped server with pg_resetwal."""
        done = self._server.run("pg_resetwal", *arguments, "-D", str(self.folder))
        assert done.returncode == 0, done.stdout

    def promote(self) -> None:
        done = self._server.run("pg_ctl", "promote", "-w", "-D", str(self.folder))
        assert done.returncode == 0, done.stdout

    @property
    def pid(self) -> int | None:
        """Return the process id of the postmaster, or None if it does not run."""
        pid = server.postmaster_pid(self.folder)
        return pid if server.is_server(pid, self.folder) else None

    def kill(self) -> None:
        """Send SIGKILL to all its processes at once; unlike after a power cut, the kernel's caches survive."""
        doomed = self.processes()
        processes.send(doomed, signal.SIGKILL)
        while any(processes.is_alive(pid) for pid in doomed):
            time.sleep(0.02)

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._server.data_dir, ignore_errors=True)

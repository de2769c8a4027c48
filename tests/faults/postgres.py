"""A PostgreSQL server of the tests' own, over TCP, that can be killed, stopped, filled up, copied and promoted.

It is the embedded one's binaries and user; only its life is in the tests' hands.
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

from factory_logs import embedded
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


class Cluster:
    """One server in a folder. `create` or `copy` it, then `start`."""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None, **options: str) -> None:
        self.port = free_port()
        self._server = embedded._prepare(folder)
        self._options = OPTIONS | options
        self._environment = environment or {}

    @property
    def url(self) -> str:
        return f"postgresql://{embedded.DATABASE}@127.0.0.1:{self.port}/{embedded.DATABASE}"

    @property
    def folder(self) -> Path:
        return self._server.cluster_dir

    @property
    def log(self) -> str:
        return embedded._tail(self._server.log_file)

    def create(self) -> None:
        embedded._init_cluster(self._server)

    def copy(self, folder: Path) -> "Cluster":
        """A streaming standby of this running server."""
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
            time.sleep(0.2)  # the processes of a killed server may take a moment to end

    def try_start(self) -> bool:
        if self.pid is None:
            embedded._disown_pid(self._server) if (self.folder / "postmaster.pid").exists() else None
        os.close(embedded._open_owned(self._server, self._server.log_file))
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

    def promote(self) -> None:
        done = self._server.run("pg_ctl", "promote", "-w", "-D", str(self.folder))
        assert done.returncode == 0, done.stdout

    @property
    def pid(self) -> int | None:
        """The postmaster's; None where none runs."""
        pid = embedded._postmaster_pid(self.folder)
        return pid if embedded._is_server(pid, self.folder) else None

    def processes(self) -> list[int]:
        """The postmaster and all that it has started."""
        return [] if self.pid is None else [self.pid, *processes.children(self.pid)]

    def kill(self) -> None:
        """SIGKILL all of it at once, as a power cut would, save that the kernel's caches live."""
        doomed = self.processes()
        processes.send(doomed, signal.SIGKILL)
        while any(processes.is_alive(pid) for pid in doomed):
            time.sleep(0.02)

    def pause(self) -> list[int]:
        """SIGSTOP all of it: it holds its connections, and answers nothing. `processes.send(..., SIGCONT)` ends it."""
        paused = self.processes()
        processes.send(paused, signal.SIGSTOP)
        return paused

    async def connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(self.url, timeout=10)

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection]:
        connection = await self.connect()
        try:
            yield connection
        finally:
            connection.terminate()

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self._server.data_dir, ignore_errors=True)

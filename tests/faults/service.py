"""`factory-logs serve` with several workers, which can be killed one by one or all at once."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import httpx

from tests.faults import processes
from tests.serving import COMMAND, free_port

READY_SECONDS = 90


class Service:
    """One service, always on the same port; what it writes is appended to `output`."""

    def __init__(self, settings: Mapping[str, str], output: Path, *, workers: int = 2) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = output
        self._workers = workers
        self._environment = os.environ | settings
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it, not waiting until it answers."""
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [*COMMAND, "serve", "--port", str(self.port), "--workers", str(self._workers)],
                env=self._environment, stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def keep_started(self) -> None:
        """What systemd or a container engine does: start it again where it has ended."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def processes(self) -> list[int]:
        """The supervisor, where one was started, and its workers."""
        return [] if self._process is None else [self.pid, *self.workers()]

    def workers(self) -> list[int]:
        """The processes that serve."""
        return [pid for pid in processes.children(self.pid) if "spawn_main" in processes.command_line(pid)]

    def memory(self) -> int:
        """The bytes that the largest worker holds."""
        return max((processes.memory(pid) for pid in self.workers()), default=0)

    def wait_until_ready(self) -> float:
        """Until every worker serves and the database answers; how many seconds that took."""
        started = time.monotonic()
        while time.monotonic() < started + READY_SECONDS:
            self.keep_started()
            if len(self.workers()) == self._workers and self._is_ready():
                return time.monotonic() - started
            time.sleep(0.05)
        raise AssertionError(f"not ready after {READY_SECONDS} s: {self.tail()}")

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """SIGKILL the supervisor and its workers at once."""
        doomed = [self.pid, *self.workers()]
        processes.send(doomed, signal.SIGKILL)
        self._reap()

    def kill_supervisor(self) -> None:
        """SIGKILL the process that was started, and none of its workers."""
        processes.send([self.pid], signal.SIGKILL)
        self._reap()

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self) -> int:
        assert self._process is not None
        code = self._process.wait(60)
        self._process = None
        return code

    def create_user(self, name: str, permission: str, password: str = "secret") -> None:
        self.run("users", "create", name, "--permission", permission, stdin=f"{password}\n")

    def run(self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
        """What another command prints, beside the service."""
        done = subprocess.run(
            [sys.executable, "-m", "factory_logs", *arguments],
            env=self._environment | (environment or {}), capture_output=True, text=True, input=stdin, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def errors(self) -> str:
        """What it has logged of its own faults."""
        lines = self.output.read_text(errors="replace").splitlines()
        return "\n".join(line.replace("\\n", "\n") for line in lines if '"level":"error"' in line)[-20_000:]

    def tail(self) -> str:
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-40:])

"""`factory-logs serve` with several workers, which tests can kill one by one or all at once."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from tests import forked
from tests.faults import processes
from tests.serving import PATIENT_SETTINGS, READY_SECONDS, free_port, responds, started_workers, workers


class Service:
    """One service, always on the same port; its output is appended to `output`."""

    def __init__(
        self,
        settings: Mapping[str, str],
        output: Path,
        *,
        workers: int = 2,
        launcher: forked.Launcher = forked.launcher,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = output
        self._workers = workers
        self._launcher = launcher
        defaults = {name: value for name, value in os.environ.items() if name not in PATIENT_SETTINGS}
        self._environment = defaults | dict(settings)
        self._process: forked.Process | None = None

    def start(self) -> None:
        """Start it without waiting until it responds."""
        with self.output.open("ab") as output:
            self._process = forked.start(
                "factory_logs", ["serve", "--port", str(self.port), "--workers", str(self._workers)],
                self._environment, stdout=output, stderr=output, launcher=self._launcher,
            )  # fmt: skip

    def keep_started(self) -> None:
        """Restart the service if it has ended, as systemd or a container engine does."""
        if self._process is None or self._process.poll() is not None:
            self.start()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def processes(self) -> list[int]:
        """Return the supervisor, if there is one, and its workers."""
        return [] if self._process is None else [self.pid, *self.workers()]

    def workers(self) -> list[int]:
        """The processes that serve."""
        return list(workers(self.pid))

    def memory(self) -> int:
        """Return the memory of the largest worker in bytes."""
        return max((processes.memory(pid) for pid in self.workers()), default=0)

    def wait_until_ready(self) -> float:
        """Wait until every worker serves and the database responds; return the seconds that this took."""
        started = time.monotonic()
        while time.monotonic() < started + READY_SECONDS:
            self.keep_started()
            if self._have_all_started() and self._is_ready():
                return time.monotonic() - started
            time.sleep(0.05)
        raise AssertionError(f"not ready after {READY_SECONDS} s: {self.tail()}")

    def _have_all_started(self) -> bool:
        found = set(self.workers())
        return len(found) == self._workers and found <= started_workers(self.output)

    def _is_ready(self) -> bool:
        return responds(self.port, "/readyz") == 200

    def kill(self) -> None:
        """Send SIGKILL to the supervisor and its workers at once."""
        doomed = [self.pid, *self.workers()]
        processes.send(doomed, signal.SIGKILL)
        self._reap()

    def kill_supervisor(self) -> None:
        """Send SIGKILL to the supervisor only, not to its workers."""
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
        code = self._process.wait(300)
        self._process = None
        return code

    def create_user(self, name: str, permission: str, password: str = "open secret") -> None:
        self.run("users", "create", name, "--permission", permission, stdin=f"{password}\n")

    def run(self, *arguments: str, stdin: str = "", environment: Mapping[str, str] | None = None) -> str:
        """Run another command while the service runs, and return its output."""
        environment = self._environment | (environment or {})
        done = forked.run(*arguments, environment=environment, stdin=stdin, launcher=self._launcher)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def errors(self) -> str:
        """Return its log lines about unexpected errors."""
        lines = self.output.read_text(errors="replace").splitlines()
        return "\n".join(line.replace("\\n", "\n") for line in lines if '"level":"error"' in line)[-20_000:]

    def tail(self) -> str:
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-40:])

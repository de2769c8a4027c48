"""Supervise the `FACTORY_LOGS_WORKERS` workers: replace workers that have ended or hang.

uvicorn's own supervisor checks the workers one after the other, and waits only five seconds for each worker. On a busy
machine it killed workers that were still importing modules.
"""

import signal
import socket
import time
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import structlog
import uvicorn
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess
from uvicorn.supervisors.multiprocess import Process

from factory_logs.settings import Settings

_log = structlog.get_logger(__name__)
STARTED = "a worker has started"
"""The log event that a worker writes when it starts to serve; from then on its health limit applies."""


@dataclass(slots=True)
class _Pulse:
    """The state of a worker's heartbeat. `seen_at` is the time of the last heartbeat, by the monotonic clock."""

    seen_at: float
    is_asked: bool = False
    has_started: bool = False


class Supervisor(Multiprocess):
    """Runs the workers until SIGTERM or SIGINT. `has_failed` is set if a worker cannot start at all."""

    def __init__(self, config: uvicorn.Config, sockets: list[socket.socket], settings: Settings) -> None:
        super().__init__(config, sockets)
        self._settings = settings
        self._pulses: WeakKeyDictionary[Process, _Pulse] = WeakKeyDictionary()
        self.has_failed = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.should_exit.set())

    def keep_subprocess_alive(self) -> None:
        """Check each worker once, without waiting."""
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set():
                return
            reason = self._reason_to_replace(process)
            if reason is None:
                continue
            process.kill()
            process.join()
            if process.exitcode == STARTUP_FAILURE:
                _log.error("a worker cannot start, so all workers stop", worker=process.pid)
                self.has_failed = True
                self.should_exit.set()
                return
            _log.error("a worker is replaced", worker=process.pid, reason=reason)
            self.processes[index] = Process(self.config, self.sockets)
            self.processes[index].start()

    def _reason_to_replace(self, process: Process) -> str | None:
        if not process.process.is_alive():
            return f"it ended with the exit code {process.exitcode}"
        pulse = self._pulses.setdefault(process, _Pulse(time.monotonic()))
        try:
            while process.parent_conn.poll(0):
                if process.parent_conn.recv() and not pulse.has_started:
                    pulse.has_started = True
                    _log.info(STARTED, worker=process.pid)
                pulse.seen_at, pulse.is_asked = time.monotonic(), False
            if not pulse.is_asked:
                process.parent_conn.send(b"ping")
                pulse.is_asked = True
        except (OSError, EOFError) as error:
            return f"its pipe is broken: {error}"
        name = "worker_health_seconds" if pulse.has_started else "worker_start_seconds"
        allowed: float = getattr(self._settings, name)
        if time.monotonic() - pulse.seen_at <= allowed:
            return None
        return f"it gave no sign of life for {allowed:g} s (FACTORY_LOGS_{name.upper()})"

    def join_all(self) -> None:
        """Wait until the workers have ended, and kill workers that hang."""
        deadline = time.monotonic() + 2 * self._settings.drain_seconds + self._settings.worker_health_seconds
        for process in self.processes:
            process.process.join(max(0.0, deadline - time.monotonic()))
            if process.process.is_alive():
                _log.error("a worker did not stop and is killed", worker=process.pid)
                process.process.kill()
                process.process.join()

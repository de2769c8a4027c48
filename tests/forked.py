"""Start `factory-logs` in separate processes without the time that its imports take.

A process that starts as a user's does spends two seconds of processor time on imports before it does anything. So one
process, the launcher, imports the modules once and forks for each start. A fork differs from a process started by
`python -m` only in this: its imports are done, and it hashes passwords cheaply. Tests of the start itself use
`subprocess`.

The workers of `serve --workers` are forked too, from their supervisor, instead of started by `multiprocessing`. They
import the service's modules again, because these keep state: that takes a quarter of the time of a new interpreter.
"""

import gc
import json
import multiprocessing.util
import os
import pkgutil
import runpy
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import argon2

ROOT = Path(__file__).parents[1]
NOT_IMPORTED = ("__main__", "openhtf", "pytest_plugin")
"""The first is run, the others need packages that the commands do not."""
WITH_STATE = ("factory_logs", "prometheus_client", "structlog")
"""The packages that a worker imports again."""
WORKER_NAME = "forked-worker"
"""What the kernel calls the process of a worker, as its command line is the launcher's."""


class Process:
    """A started process; the methods are those of subprocess.Popen."""

    def __init__(self, arguments: Sequence[str], status: int) -> None:
        self.args = arguments
        self.returncode: int | None = None
        self._status = os.fdopen(status)
        pid = self._status.readline()
        assert pid, "the launcher has ended; its output says why"
        self.pid = int(pid)

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(list(self.args), timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        """Return the exit code, negative after a signal; None if the process still runs after the time-out."""
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            self.returncode = int(self._status.readline())
            self._status.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Launcher:
    """The process that forks; it ends with this one or by `close`.

    It starts with `variables` in its environment: a library that they preload is then in all that it forks.
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        self._variables = variables or {}
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, message: dict[str, Any], files: list[int]) -> int:
        """Return the descriptor from which the id of the new process can be read, and at its end its exit code."""
        reading, writing = os.pipe()
        with self._lock:
            if self._control is None:
                self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                with theirs:
                    self._process = subprocess.Popen(
                        [sys.executable, "-m", __name__, str(theirs.fileno())],
                        cwd=ROOT, env=os.environ | self._variables, pass_fds=[theirs.fileno()],
                    )  # fmt: skip
            socket.send_fds(self._control, [json.dumps(message).encode()], [*files, writing])
        os.close(writing)
        return reading

    def close(self) -> None:
        if self._control is not None and self._process is not None:
            self._control.close()
            self._process.wait(300)


launcher = Launcher()


def start(
    module: str,
    arguments: Sequence[str | os.PathLike[str]],
    environment: Mapping[str, str],
    *,
    stdout: IO[Any],
    stderr: IO[Any],
    stdin: IO[Any] | None = None,
    cwd: Path | None = None,
    forks_workers: bool = True,
    launcher: Launcher = launcher,
) -> Process:
    """Start `python -m <module> <arguments>` with this whole environment."""
    texts = [str(argument) for argument in arguments]
    message = {
        "module": module, "arguments": texts, "environment": dict(environment), "cwd": str(cwd or Path.cwd()),
        "forks_workers": forks_workers,
    }  # fmt: skip
    with open(os.devnull, "rb") as nothing:
        files = [file.fileno() for file in (stdin or nothing, stdout, stderr)]
        return Process([module, *texts], launcher.start(message, files))


def run(
    *arguments: str | os.PathLike[str],
    environment: Mapping[str, str],
    stdin: str = "",
    cwd: Path | None = None,
    launcher: Launcher = launcher,
) -> subprocess.CompletedProcess[str]:
    """Run `factory-logs <arguments>` in a separate process with this whole environment."""
    with ExitStack() as opened:
        given, out, err = (opened.enter_context(tempfile.TemporaryFile("w+")) for _ in range(3))
        given.write(stdin)
        given.seek(0)
        code = start(
            "factory_logs", arguments, environment, stdin=given, stdout=out, stderr=err, cwd=cwd, launcher=launcher
        ).wait()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, out.read(), err.read())


def run_for_one_line(
    *arguments: str | os.PathLike[str], environment: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run `factory-logs <arguments>`, and close the pipe of its output after the first line, as `head -n 1` does."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile("w+") as err:
        with open(reading, encoding="utf-8") as lines:
            with open(writing, "wb") as out:
                process = start("factory_logs", arguments, environment, stdout=out, stderr=err)
            line = lines.readline()
        code = process.wait()
        err.seek(0)
        return subprocess.CompletedProcess(arguments, code, line, err.read())


class CheapPasswordHasher(argon2.PasswordHasher):
    """Hashes passwords with argon2id at a low cost, because the usual cost takes longer than most tests."""

    def __init__(self) -> None:
        super().__init__(time_cost=1, memory_cost=64, parallelism=1)


def _import_all() -> None:
    argon2.PasswordHasher = CheapPasswordHasher  # type: ignore[misc]
    import factory_logs

    for module in pkgutil.walk_packages(factory_logs.__path__, "factory_logs."):
        if not module.name.endswith(NOT_IMPORTED):
            import_module(module.name)
    for name in ("uvicorn.loops.uvloop", "uvicorn.lifespan.on", "uvicorn.main"):
        import_module(name)


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each message. Return the message in the new process, and None in this one when `control` is closed."""
    selector = selectors.DefaultSelector()
    selector.register(control, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is not control:
                pid, status = key.data
                _, ended = os.waitpid(pid, 0)
                _write(status, os.waitstatus_to_exitcode(ended))
                os.close(status)
                selector.unregister(key.fileobj)
                os.close(key.fd)
                continue
            text, files, _, _ = socket.recv_fds(control, 1 << 20, 4)
            if not text:
                return None
            pid = os.fork()
            if pid == 0:
                selector.close()
                control.close()
                for number in range(3):
                    os.dup2(files[number], number)
                os.closerange(3, 65536)
                message: dict[str, Any] = json.loads(text)
                return message
            for file in files[:3]:
                os.close(file)
            _write(files[3], pid)
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, files[3]))


def _write(file: int, number: int) -> None:
    with suppress(BrokenPipeError):  # the test has ended
        os.write(file, f"{number}\n".encode())


def _become(message: dict[str, Any]) -> None:
    """Run the module as `python -m` does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(message["environment"])
    time.tzset()
    os.chdir(message["cwd"])
    sys.path[0] = message["cwd"]
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    sys.stdout.reconfigure(line_buffering=sys.stdout.isatty(), write_through=bool(os.environ.get("PYTHONUNBUFFERED")))
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.argv = [sys.argv[0], *message["arguments"]]
    if message["forks_workers"]:
        multiprocessing.util.spawnv_passfds = _fork_worker
    runpy.run_module(message["module"], run_name="__main__", alter_sys=True)


_start_program = multiprocessing.util.spawnv_passfds


def _fork_worker(path: bytes, arguments: Sequence[str], files: Sequence[int]) -> int:
    """Fork a process that does what the program of these arguments would do; return its id.

    A process with threads, and any other program, is started as usual: a lock that another thread holds during the fork
    would never be released.
    """
    if arguments[-1] != "--multiprocessing-fork" or threading.active_count() > 1:
        return _start_program(path, arguments, files)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _work(arguments, files)
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:  # noqa: BLE001 - any error ends a program with its traceback
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def _work(arguments: Sequence[str], files: Sequence[int]) -> None:
    """Run `multiprocessing`'s program for a worker in this fork of its supervisor."""
    Path("/proc/self/comm").write_text(WORKER_NAME)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)) and number != signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    gc.collect()
    gc.freeze()  # with all open files of the supervisor: one that ended later would close a file of the worker
    first = 3
    for file in sorted(set(files)):
        os.closerange(first, file)
        first = file + 1
    os.closerange(first, 65536)
    _replaced.extend(sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in WITH_STATE)
    sys.orig_argv = list(arguments)
    sys.argv = ["-c", *arguments[-1:]]
    exec(arguments[arguments.index("-c") + 1], {})


_replaced: list[ModuleType] = []
"""The supervisor's modules, kept for the same reason."""


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests
    _import_all()
    gc.freeze()
    if (asked := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _become(asked)

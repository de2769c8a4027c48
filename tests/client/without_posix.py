"""Run the `factory-logs` command in a Python that lacks the modules and functions that Windows lacks.

Other packages are imported first: they have their own ways on Windows, and keep those of this system here.
"""

import os
import shutil
import signal
import socket
import sys
import time
from types import ModuleType

MODULES = ("fcntl", "grp", "pwd", "resource", "syslog", "termios", "tty", "pty", "readline")
MISSING: dict[ModuleType, tuple[str, ...]] = {
    os: (
        "O_CLOEXEC", "O_DIRECTORY", "O_NOFOLLOW", "SEEK_DATA", "SEEK_HOLE", "chown", "fchmod", "fchown", "fork",
        "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getuid", "killpg", "mkfifo",
        "posix_fadvise", "posix_fallocate", "pread", "pwrite", "register_at_fork", "sched_getaffinity",
        "setsid", "statvfs", "sysconf", "uname",
    ),
    signal: ("SIGALRM", "SIGHUP", "SIGKILL", "SIGUSR1", "alarm", "pthread_kill", "pthread_sigmask", "setitimer"),
    socket: ("AF_UNIX",),
    time: ("CLOCK_BOOTTIME", "clock_gettime", "clock_settime"),
}  # fmt: skip


def import_other_packages() -> None:
    """Import the other packages that the device's commands use."""
    import concurrent.futures
    import logging
    import multiprocessing.connection
    import sqlite3
    import subprocess
    import tempfile
    import threading
    import uuid

    import httpcore
    import httpx
    import orjson
    import pydantic
    import rich.console
    import rich.live
    import rich.progress
    import rich.table
    import rich.text
    import typer
    import zstandard

    del concurrent, logging, multiprocessing, sqlite3, subprocess, tempfile, threading, uuid
    del httpcore, httpx, orjson, pydantic, rich, typer, zstandard
    with_statvfs, statvfs = shutil.disk_usage, os.statvfs

    def disk_usage(path: object) -> object:
        """Behave like Windows' own function."""
        os.statvfs = statvfs
        try:
            return with_statvfs(path)  # type: ignore[arg-type]
        finally:
            del os.statvfs

    shutil.disk_usage = disk_usage  # type: ignore[assignment]


def remove_posix() -> None:
    """Remove the modules and functions that Windows lacks."""
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in MISSING.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


if __name__ == "__main__":
    loaded = [name for name in sys.modules if name.partition(".")[0] == "factory_logs"]
    assert not loaded, loaded
    import_other_packages()
    remove_posix()
    if sys.argv[1] == "-c":
        exec(sys.argv[2])
    else:
        from factory_logs.cli import main

        main()

"""Shared by the tests of the device commands: run a command in its own process, and read the spool."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any


def spooled(folder: Path) -> list[dict[str, Any]]:
    """Return the logs that wait in a spool."""
    with closing(sqlite3.connect(folder / "spool-1.sqlite3")) as connection:
        return [json.loads(line) for (line,) in connection.execute("SELECT line FROM records ORDER BY seq")]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def running(*arguments: str | Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run `factory-logs <arguments>` in its own process, and end it with Ctrl-C."""
    process = subprocess.Popen(
        [sys.executable, "-m", "factory_logs", *arguments], env=os.environ | environment,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(300)

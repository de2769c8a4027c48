"""The log of the embedded PostgreSQL: `postgres.log` in the data directory, with a limited size."""

import os
import shutil
from contextlib import suppress

from factory_logs.embedded.files import Folder

LOG_FILE = "postgres.log"
OLD_LOG_FILE = "postgres.log.1"
MAX_LOG_BYTES = 10 * 1024 * 1024
TAIL_BYTES = 16 * 1024
TAIL_LINES = 20


def end_of_log(folder: Folder) -> str:
    """Return the last lines of the log, for an error message."""
    try:
        descriptor = folder.open(LOG_FILE, os.O_RDONLY)
    except OSError as error:
        return f"({error})"
    with os.fdopen(descriptor, "rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL_LINES:])


def rotate_log(folder: Folder, max_bytes: int) -> None:
    """Move the content of a log larger than `max_bytes` to `postgres.log.1`, at most its newest `max_bytes`.

    The file itself stays, because a running PostgreSQL appends to it. A line written between copying and truncating is
    lost.
    """
    with suppress(FileNotFoundError), os.fdopen(folder.open(LOG_FILE), "r+b") as log:
        size = log.seek(0, os.SEEK_END)
        if size <= max_bytes:
            return
        log.seek(size - max_bytes)
        folder.unlink(f"{OLD_LOG_FILE}.new")
        with os.fdopen(folder.make(f"{OLD_LOG_FILE}.new"), "wb") as old:
            shutil.copyfileobj(log, old)
        folder.rename(f"{OLD_LOG_FILE}.new", OLD_LOG_FILE)
        os.ftruncate(log.fileno(), 0)

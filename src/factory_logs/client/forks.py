"""Handle forks with open SQLite files: a child must not use its parent's connections or rely on its parent's locks.

Test scripts fork, as multiprocessing does by default on Linux. Connections are idle during the fork and are closed in
the child, which opens its own if it needs them.
"""

import os
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """An object that contains an SQLite connection, guarded by `lock`."""

    lock: threading.RLock

    def close(self) -> None: ...


lock = threading.RLock()
"""Held during a fork, and during work that a fork must not interrupt."""

_registered: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_held: list[Forkable] = []


def register(connection: Forkable) -> None:
    """Close the connection in every child that the process forks."""
    with lock:
        _registered.add(connection)


def _before() -> None:
    lock.acquire()
    _held.extend(sorted(_registered, key=id))
    for connection in _held:
        connection.lock.acquire()


def _in_parent() -> None:
    while _held:
        _held.pop().lock.release()
    lock.release()


def _in_child() -> None:
    for connection in _held:
        connection.close()
    _in_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)

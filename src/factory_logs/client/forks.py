"""Forking with an open SQLite file: a child must not use its parent's connections, nor its belief in their locks.

Test scripts fork, as multiprocessing does by default on Linux. Each connection is quiet while the fork happens and is
closed in the child, which opens its own when it needs one.
"""

import os
import threading
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something that holds a connection, guarded by `lock`."""

    lock: threading.RLock

    def close(self) -> None: ...


lock = threading.RLock()
"""Held during a fork: what a child must not find half done is done under it."""

_registered: "weakref.WeakSet[Forkable]" = weakref.WeakSet()
_held: list[Forkable] = []


def register(connection: Forkable) -> None:
    """Look after this one at every fork of the process."""
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

"""Settings, a clock, single steps and access to the spool, for tests of the client."""

import sqlite3
from collections.abc import Callable
from typing import Any

from factory_logs.client import ClientSettings
from factory_logs.client.sender import Sender

NOWHERE = "http://127.0.0.1:9"
QUICK = ClientSettings(linger_seconds=0.0, poll_seconds=0.05, backoff_base_seconds=0.05, backoff_cap_seconds=0.2)


def settings(**changes: object) -> ClientSettings:
    return ClientSettings.model_validate(QUICK.model_dump() | changes)


def drain(sender: Sender, steps: int = 100) -> None:
    """Step until the sender has nothing to send, without waiting: a clock of a test is set forward."""
    for _ in range(steps):
        pause = sender.step()
        if pause.idle:
            return
        if pause.firm and isinstance(sender._clock, Clock):
            sender._clock.seconds += pause.seconds
    raise AssertionError(f"still not idle: {sender.trouble}")


class Clock:
    """A clock that advances only when a test sets it forward."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def query(sql: str) -> Callable[[sqlite3.Connection], list[tuple[Any, ...]]]:
    """Return a job for the spool that returns the rows of a statement."""
    return lambda connection: connection.execute(sql).fetchall()

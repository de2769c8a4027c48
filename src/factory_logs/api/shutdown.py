"""When the worker is asked to stop: answers without an end must end by themselves then.

uvicorn waits for open answers, and tells the application of its stop only after them.
"""

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]


@contextmanager
def stopping() -> Iterator[asyncio.Event]:
    """An event that is set when uvicorn's own handler hears SIGTERM or SIGINT, and at the end at the latest."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    before: dict[int, Handler] = {}

    def heard(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(event.set)
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in map(int, (signal.SIGTERM, signal.SIGINT)):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                before[number] = handler
                signal.signal(number, heard)
    try:
        yield event
    finally:
        event.set()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending_with_supervisor() -> Iterator[None]:
    """A worker whose supervisor was killed stops too: it would hold the port, and nobody would replace it."""
    supervisor = multiprocessing.parent_process()
    if supervisor is None:
        yield
        return
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(supervisor.sentinel)
        os.kill(os.getpid(), signal.SIGTERM)

    loop.add_reader(supervisor.sentinel, end)
    try:
        yield
    finally:
        loop.remove_reader(supervisor.sentinel)

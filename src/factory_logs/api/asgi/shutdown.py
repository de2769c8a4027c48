"""Notify endless responses that the worker must stop. uvicorn stops the application only after all responses."""

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
def stop_event() -> Iterator[asyncio.Event]:
    """Yield an event that is set on SIGTERM or SIGINT, or when the context ends. uvicorn's own handlers also run."""
    event = asyncio.Event()
    loop = asyncio.get_running_loop()
    before: dict[int, Handler] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(event.set)
        before[number](number, frame)

    if threading.current_thread() is threading.main_thread():
        for number in map(int, (signal.SIGTERM, signal.SIGINT)):
            handler = signal.getsignal(number)
            if callable(handler) and handler is not signal.default_int_handler:
                before[number] = handler
                signal.signal(number, handle)
    try:
        yield event
    finally:
        event.set()
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_with_supervisor() -> Iterator[None]:
    """Stop the worker if its supervisor is killed. Otherwise, the worker would keep the port without supervision."""
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

"""The threads beside the script: one in which the sender works, one that flushes the spool where send() does not."""

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Protocol

from factory_logs.client.errors import SpoolError
from factory_logs.client.sender import Pause
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool_lock import SpoolLock

TROUBLE_SECONDS = 5.0

_log = logging.getLogger(__name__)
_senders: "weakref.WeakSet[threading.Thread]" = weakref.WeakSet()


def is_sender(thread: int | None) -> bool:
    """Whether this is a sender's thread, of whichever client: what is logged in it must not be sent.

    Each such log would bring forth the next, be it by way of a second client.
    """
    return any(sender.ident == thread and sender.is_alive() for sender in list(_senders))


class Steps(Protocol):
    """What the thread does over and over."""

    @property
    def trouble(self) -> str | None: ...
    def step(self) -> Pause: ...


class Background:
    """Runs a sender's steps while it holds the spool's lock.

    `check` looks the spool over when the lock was taken, `at_end` frees what the sender holds.
    """

    def __init__(
        self,
        sender: Steps,
        lock: SpoolLock,
        settings: ClientSettings,
        check: Callable[[], None],
        at_end: Callable[[], None],
    ) -> None:
        self._sender = sender
        self._lock = lock
        self._settings = settings
        self._check = check
        self._at_end = at_end
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._woken = False
        self._hurried = False
        self._spool_trouble: str | None = None
        self._thread = threading.Thread(target=self._run, name="factory-logs-sender", daemon=True)
        _senders.add(self._thread)

    @property
    def trouble(self) -> str | None:
        """Why nothing gets through at the moment."""
        return self._spool_trouble or self._sender.trouble

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """There is something to send.

        Who was woken and has not looked yet will find it: send() must not wake a thread for every log.
        """
        if self._woken:
            return
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def hurry(self) -> None:
        """Try now, without waiting for more logs or for a backoff to end."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def wait_for_change(self, seconds: float) -> None:
        """Wait until the sender has done something, at most so long."""
        with self._changed:
            self._changed.wait(max(0.0, seconds))

    def stop(self, timeout: float) -> None:
        """End the thread after what it is doing now. After `timeout` seconds it is left to end by itself."""
        self._stop.set()
        self.hurry()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                pause = self._turn()
                with self._changed:
                    self._changed.notify_all()
                self._wait(pause)
        finally:
            self._lock.close()
            self._at_end()

    def _turn(self) -> Pause:
        try:
            if not self._lock.held:
                if not self._lock.acquire():
                    return Pause(self._settings.poll_seconds)
                self._check()
            pause = self._sender.step()
        except SpoolError as error:
            _log.error("The sender cannot use the spool: %s", error)
            self._spool_trouble = str(error)
        except Exception as error:  # noqa: BLE001 - a jig's sender must outlive whatever it meets
            _log.exception("The sender failed; it goes on")
            self._spool_trouble = f"{type(error).__name__}: {error}"
        else:
            self._spool_trouble = None
            return pause
        return Pause(TROUBLE_SECONDS)

    def _wait(self, pause: Pause) -> None:
        if not pause.seconds:
            return
        with self._changed:
            if not pause.idle:
                self._wait_for(pause.seconds, lambda: self._hurried and not pause.firm)
            elif self._wait_for(pause.seconds, lambda: self._woken or self._hurried):
                self._wait_for(self._settings.linger_seconds, lambda: self._hurried)
            self._woken = self._hurried = False

    def _wait_for(self, seconds: float, over: Callable[[], bool]) -> bool:
        return self._changed.wait_for(lambda: over() or self._stop.is_set(), seconds)


class Flusher:
    """With fsync normal: flushes the spool `sync_seconds` after a log was put into it, in a thread of its own."""

    def __init__(self, flush: Callable[[], None], settings: ClientSettings) -> None:
        self._flush = flush
        self._seconds = settings.sync_seconds
        self._put = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="factory-logs-flusher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something was put into the spool."""
        self._put.set()

    def stop(self) -> None:
        """Flush what was put and end."""
        self._stop.set()
        self._put.set()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            self._put.wait()
            self._stop.wait(self._seconds)
            self._put.clear()  # before the look at _stop, which stop() sets first: its wake-up is not lost
            is_last = self._stop.is_set()
            try:
                self._flush()
            except SpoolError as error:
                _log.error("The spool cannot be flushed: %s", error)

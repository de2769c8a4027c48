"""The background threads of the client. One thread sends logs. If `send` does not flush the spool, another thread
does."""

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
    """Return whether the current thread is the sender thread of any client.

    Log records made in this thread must not be sent: each record would cause another one, even through a second client.
    """
    return any(sender.ident == thread and sender.is_alive() for sender in list(_senders))


class Steps(Protocol):
    """The work that the sender thread repeats."""

    @property
    def trouble(self) -> str | None: ...
    def step(self) -> Pause: ...


class SenderThread:
    """Runs a sender's steps while it holds the spool's lock.

    `check` reads the whole spool after the lock is acquired, `at_end` closes the sender's files and connections, and
    `report` is called with the trouble after each step.
    """

    def __init__(
        self,
        sender: Steps,
        lock: SpoolLock,
        settings: ClientSettings,
        check: Callable[[], None],
        at_end: Callable[[], None],
        report: Callable[[str | None], None] = lambda trouble: None,
    ) -> None:
        self._sender = sender
        self._lock = lock
        self._settings = settings
        self._check = check
        self._at_end = at_end
        self._report = report
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._woken = False
        self._hurried = False
        self._spool_trouble: str | None = None
        self.is_elsewhere = False
        """Whether another process or client held the lock when this thread last tried to acquire it."""
        self._thread = threading.Thread(target=self._run, name="factory-logs-sender", daemon=True)
        _senders.add(self._thread)

    @property
    def trouble(self) -> str | None:
        """The reason why no log is delivered, or None if logs are delivered."""
        return self._spool_trouble or self._sender.trouble

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Wake the thread, because there is a log to send.

        If the thread was woken but has not run yet, it will find the log, so `send` does not wake it again for every
        log.
        """
        if self._woken:
            return
        with self._changed:
            self._woken = True
            self._changed.notify_all()

    def hurry(self) -> None:
        """Make the thread send now, without waiting for more logs or for the end of a backoff."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def wait_for_change(self, seconds: float) -> None:
        """Wait for the end of the current step, at most `seconds`."""
        with self._changed:
            self._changed.wait(max(0.0, seconds))

    def stop(self, timeout: float) -> None:
        """End the thread after its current step. Wait at most `timeout` seconds for that."""
        self._stop.set()
        self.hurry()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                pause = self._turn()
                if self._lock.held:
                    self._report(self.trouble)
                with self._changed:
                    self._changed.notify_all()
                self._wait(pause)
        finally:
            self._lock.close()
            self._at_end()

    def _turn(self) -> Pause:
        try:
            if not self._lock.held:
                self.is_elsewhere = not self._lock.acquire()
                if self.is_elsewhere:
                    return Pause(self._settings.poll_seconds)
                self._check()
            pause = self._sender.step()
        except SpoolError as error:
            if self._is_new_trouble(str(error)):
                _log.error("The sender cannot use the spool: %s", error)
        except Exception as error:  # noqa: BLE001 - a jig's sender must survive every error
            if self._is_new_trouble(f"{type(error).__name__}: {error}"):
                _log.exception("The sender failed; it goes on")
        else:
            self._spool_trouble = None
            return pause
        return Pause(TROUBLE_SECONDS)

    def _is_new_trouble(self, trouble: str) -> bool:
        """Store the trouble. Return whether it differs from the one before: each is logged only once, because it may
        last for days."""
        before, self._spool_trouble = self._spool_trouble, trouble
        return trouble != before

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


class FlushThread:
    """Flushes the spool `sync_seconds` after a log was put into it, for `fsync="normal"`."""

    def __init__(self, flush: Callable[[], None], settings: ClientSettings) -> None:
        self._flush = flush
        self._seconds = settings.sync_seconds
        self._changed = threading.Condition()  # unlike an Event, a signal handler may use it at any time
        self._is_due = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="factory-logs-flusher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Schedule a flush, because a log was put into the spool."""
        with self._changed:
            self._is_due = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Flush one last time and end the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
        self._thread.join()

    def _run(self) -> None:
        is_last = False
        while not is_last:
            with self._changed:
                self._changed.wait_for(lambda: self._is_due or self._is_stopping)
                self._changed.wait_for(lambda: self._is_stopping, self._seconds)
                self._is_due, is_last = False, self._is_stopping
            try:
                self._flush()
            except SpoolError as error:
                _log.error("The spool cannot be flushed: %s", error)

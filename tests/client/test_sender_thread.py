"""The client's threads in a script."""

import threading
import time
from pathlib import Path

import pytest

from factory_logs.client import sender_thread
from factory_logs.client.errors import SpoolError
from factory_logs.client.sender import Pause
from factory_logs.client.sender_thread import FlushThread, SenderThread
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool_lock import SpoolLock

NORMAL = ClientSettings(fsync="normal", sync_seconds=0.01)


def test_a_log_put_during_a_flush_is_on_disk_when_the_flusher_has_stopped() -> None:
    put, on_the_disk = 1, 0

    def flush() -> None:
        nonlocal put, on_the_disk
        flushing = put
        if put == 1:
            put = 2
            flusher.wake()
            stopping.start()
            while not flusher._is_stopping:
                time.sleep(0.001)
        on_the_disk = flushing

    flusher = FlushThread(flush, NORMAL)
    stopping = threading.Thread(target=flusher.stop)
    flusher.start()
    flusher.wake()
    flusher._thread.join(60)
    stopping.join(60)
    assert (put, on_the_disk) == (2, 2)


def test_the_last_logs_are_flushed_at_the_end_and_an_idle_flusher_ends() -> None:
    flushes = []
    flusher = FlushThread(lambda: flushes.append(1), ClientSettings(fsync="normal", sync_seconds=3600))
    flusher.start()
    flusher.wake()
    flusher.stop()
    assert flushes
    idle = FlushThread(lambda: None, NORMAL)
    idle.start()
    idle.stop()


class Failing:
    """Steps that raise these errors one after the other; then they succeed."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.trouble = None
        self.done = threading.Event()

    def step(self) -> Pause:
        if self.errors:
            raise self.errors.pop(0)
        self.done.set()
        return Pause(60.0, idle=True)


@pytest.mark.parametrize(
    ("first", "second"), [(SpoolError("read-only"), SpoolError("gone")), (KeyError("a"), KeyError("b"))]
)
def test_an_error_of_the_spool_that_lasts_is_logged_once(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    first: Exception,
    second: Exception,
) -> None:
    monkeypatch.setattr(sender_thread, "TROUBLE_SECONDS", 0.001)
    steps = Failing(*[first] * 5, *[second] * 5)
    thread = SenderThread(steps, SpoolLock(tmp_path), ClientSettings(), lambda: None, lambda: None)
    thread.start()
    assert steps.done.wait(60)
    thread.stop(60)
    assert len(caplog.records) == 2

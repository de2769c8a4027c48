"""The client's threads in a script."""

import threading

from factory_logs.client.sender_thread import FlushThread
from factory_logs.client.settings import ClientSettings

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
            assert flusher._stop.wait(60)
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

"""The threads beside the script."""

import threading

from factory_logs.client.background import Flusher
from factory_logs.client.settings import ClientSettings

NORMAL = ClientSettings(fsync="normal", sync_seconds=0.01)


def test_a_log_that_is_put_during_a_flush_is_on_the_disk_when_the_flusher_has_stopped() -> None:
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

    flusher = Flusher(flush, NORMAL)
    stopping = threading.Thread(target=flusher.stop)
    flusher.start()
    flusher.wake()
    flusher._thread.join(60)
    stopping.join(60)
    assert (put, on_the_disk) == (2, 2)


def test_what_was_put_last_is_flushed_at_the_end_and_the_flusher_ends_however_idle_it_was() -> None:
    flushes = []
    flusher = Flusher(lambda: flushes.append(1), ClientSettings(fsync="normal", sync_seconds=3600))
    flusher.start()
    flusher.wake()
    flusher.stop()
    assert flushes
    idle = Flusher(lambda: None, NORMAL)
    idle.start()
    idle.stop()

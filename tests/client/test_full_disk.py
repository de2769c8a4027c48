"""A spool that has filled its disk: it drains with its reserve, and then accepts logs again."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from factory_logs.client import Client, ClientSettings
from factory_logs.client.errors import DiskFullError, SpoolFullError
from factory_logs.client.spool import Spool
from factory_logs.client.spool_lock import SpoolLock
from factory_logs.client.spool_reserve import RESERVE_BYTES
from tests.client.factories import drain
from tests.client.scripted_server import Server, put, sender_of
from tests.faults.disk import SmallDisk, small_disk

MIB = 1024 * 1024
LINE = b'{"app_name":"a","timestamp":"2024-01-01 00:00:00","fields":"%b"}' % (b"x" * 1000)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 24) as disk:
        if disk is None:
            pytest.skip("this system lets us mount no disk")
        yield disk


def fill_and_die(folder: Path, size: int, fsync: str) -> None:
    """Put logs until the disk is full, and exit without closing anything, like a killed process."""
    spool = Spool(folder, fsync=fsync)  # type: ignore[arg-type]
    spool.put([LINE])
    try:
        put_for_ever(spool, size)
    except DiskFullError:
        os._exit(0)


def put_for_ever(spool: Spool, size: int) -> None:
    while True:
        spool.put([LINE] * size)


def filled(disk: SmallDisk, size: int, fsync: str = "full") -> Path:
    """Return a spool that has filled the disk; other files take the space that it left free."""
    folder = disk.folder / "spool"
    child = multiprocessing.get_context("spawn").Process(target=fill_and_die, args=(folder, size, fsync))
    child.start()
    child.join(120)
    assert child.exitcode == 0
    disk.fill()
    return folder


def free(disk: SmallDisk) -> int:
    return os.statvfs(disk.folder).f_bavail


@pytest.mark.parametrize("size", [1, 500, 3000], ids=["a log at a time", "half a MiB at a time", "3 MiB at a time"])
@pytest.mark.parametrize("is_restarted", [False, True], ids=["killed", "lost its memory map"])
def test_a_spool_that_has_filled_its_disk_drains_and_accepts_logs_again(
    disk: SmallDisk, size: int, is_restarted: bool
) -> None:
    folder = filled(disk, size)
    if is_restarted:
        (folder / "spool-1.sqlite3-shm").unlink()
        disk.fill()
    assert free(disk) == 0
    lock = SpoolLock(folder)
    assert lock.acquire()
    spool, server = Spool(folder), Server()
    with pytest.raises(DiskFullError):
        put_for_ever(spool, 100)  # the allocated pages of the file may have free space
    waiting = spool.totals().pending
    assert waiting > 3000
    drain(sender_of(spool, server), 1000)
    assert len(server.stored) == waiting
    assert (spool.totals().pending, spool.totals().delivered) == (0, waiting)
    assert (folder / "reserve").stat().st_size == RESERVE_BYTES
    for number in range(100):
        put(spool, 10, 10 * number)
    drain(sender_of(spool, server))
    assert spool.totals().delivered == waiting + 1000
    spool.file.close()
    lock.close()


def test_a_spool_that_has_filled_its_disk_can_set_rejected_logs_aside_while_it_drains(disk: SmallDisk) -> None:
    spool, server = Spool(filled(disk, 500)), Server()
    waiting = spool.totals().pending

    def reject_one(request: httpx.Request) -> httpx.Response:
        error = {"index": 0, "field": "", "message": "bad"}
        content = {"message": "no", "errors": [error], "request_id": request.headers["X-Request-ID"]}
        return httpx.Response(400, json=content)

    server.script = [reject_one] * 5
    drain(sender_of(spool, server), 1000)
    assert (spool.totals().rejected, spool.totals().delivered) == (5, waiting - 5)
    assert spool.drop(None) == 5
    spool.file.close()


def test_while_the_reserve_is_in_use_no_log_takes_its_space(disk: SmallDisk) -> None:
    of_others = disk.folder / "of others"
    of_others.write_bytes(bytes(2 * MIB))
    spool, server = Spool(filled(disk, 100)), Server()
    server.script = [httpx.ConnectError("unreachable")] * 100
    sender = sender_of(spool, server)
    sender.step()
    disk.fill()
    spool.file.reserve.release()
    with pytest.raises(SpoolFullError, match="is full"):
        spool.put([b"x"])
    with pytest.raises(SpoolFullError, match="is full"):
        spool.retry(None)
    disk.free()
    of_others.unlink()
    sender.step()  # a person has freed space: the link may still be down
    spool.put([LINE])
    spool.file.close()


def test_a_client_starts_on_a_full_disk_and_waits_until_draining_frees_space(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = filled(disk, 500, "normal")
    server = Server()
    chosen = ClientSettings(poll_seconds=0.05, block_seconds=60)
    with Client("http://logs.test", "t", spool=folder, settings=chosen, transport=httpx.MockTransport(server)) as log:
        log.send("jig", fields={"n": 1})
        assert log.flush(60)
    assert server.stored[-1].endswith('"fields":{"n":1}}')


def test_a_large_put_leaves_space_for_its_own_checkpoint(disk: SmallDisk) -> None:
    spool = Spool(disk.folder / "spool")
    spool.put([LINE])
    with pytest.raises(DiskFullError, match=r"has no room for \d+ bytes"):
        spool.put([LINE] * 9000)  # of the 15 MiB of free space
    spool.put([LINE] * 6000)
    assert spool.totals().pending == 6001
    spool.file.close()


def test_a_disk_too_small_for_the_reserve_accepts_logs_only_with_a_smaller_reserve(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4) as disk:
        if disk is None:
            pytest.skip("this system lets us mount no disk")
        spool = Spool(disk.folder / "spool")
        with pytest.raises(SpoolFullError, match="too small for its reserve"):
            spool.put([LINE])
        spool.file.close()
        spool = Spool(disk.folder / "other", reserve_bytes=MIB)
        spool.put([LINE])
        assert (disk.folder / "other" / "reserve").stat().st_blocks * 512 >= MIB
        spool.file.close()
        spool = Spool(disk.folder / "none", reserve_bytes=0)
        spool.put([LINE])
        assert not (disk.folder / "none" / "reserve").exists()
        spool.file.close()

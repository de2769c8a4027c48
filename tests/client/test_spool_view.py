"""Viewing a spool that other processes use leaves no trace in it."""

import os
import time
from pathlib import Path

import httpx
import pytest

from factory_logs.client import Client
from factory_logs.client.errors import SpoolError
from factory_logs.client.outbox import Outbox
from factory_logs.client.spool import Spool
from factory_logs.client.spool_lock import SpoolLock
from factory_logs.client.spool_view import SpoolView
from tests.client.factories import NOWHERE, settings
from tests.client.links import Switched
from tests.client.scripted_server import Server, error


def filled(folder: Path) -> Spool:
    """Return a spool with two waiting logs and a rejected one."""
    spool = Spool(folder)
    spool.put([b"1", b"2", b"3"])
    batch = Outbox(spool.file).open(1, 100, "token a", 0.0)
    assert batch is not None
    Outbox(spool.file).reject(batch, {0: "bad"})
    return spool


def names(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("is_open", [True, False])
def test_it_shows_the_content_of_the_spool_and_changes_no_file(tmp_path: Path, is_open: bool) -> None:
    spool = filled(tmp_path)
    if not is_open:
        spool.file.close()
    before = names(tmp_path)
    view = SpoolView(tmp_path)
    totals = view.totals()
    assert (totals.pending, totals.rejected) == (2, 1)
    assert [(log.line, log.reason) for log in view.rejected(10)] == [(b"1", "bad")]
    assert view.rejected(0) == []
    assert names(tmp_path) == before
    spool.file.close()


def test_it_does_not_wait_for_a_writer(tmp_path: Path) -> None:
    spool = filled(tmp_path)
    with spool.file.lock:
        spool.file.run(lambda connection: totals_elsewhere(tmp_path))
    spool.file.close()


def totals_elsewhere(folder: Path) -> None:
    assert SpoolView(folder).totals().pending == 2


def test_a_read_only_folder_can_be_viewed(short_tmp: Path) -> None:
    filled(short_tmp / "spool").file.close()
    (short_tmp / "spool").chmod(0o555)
    shown = os.fork() if hasattr(os, "fork") else pytest.skip("this system does not fork")
    if shown == 0:
        try:
            if os.geteuid() == 0:
                for path in (short_tmp / "spool").iterdir():
                    path.chmod(0o444)
                os.setuid(65534)
            pending = SpoolView(short_tmp / "spool").totals().pending
        except BaseException:  # noqa: BLE001 - the child must end here in any case
            os._exit(100)
        os._exit(pending)
    assert os.waitstatus_to_exitcode(os.waitpid(shown, 0)[1]) == 2
    (short_tmp / "spool").chmod(0o755)


def test_a_missing_or_damaged_spool_is_an_error_and_is_not_changed(tmp_path: Path) -> None:
    with pytest.raises(SpoolError, match="there is no spool in"):
        SpoolView(tmp_path)
    (tmp_path / "spool-1.sqlite3").write_bytes(b"not a database" * 100)
    with pytest.raises(SpoolError, match="cannot be read"):
        SpoolView(tmp_path).totals()
    assert SpoolView(tmp_path).damaged() == []
    (tmp_path / "spool-1.sqlite3.damaged").touch()
    assert SpoolView(tmp_path).totals().pending == 0
    assert SpoolView(tmp_path).rejected(10) == []
    assert SpoolView(tmp_path).damaged() == ["spool-1.sqlite3.damaged"]


def test_it_shows_whether_a_process_sends(tmp_path: Path) -> None:
    filled(tmp_path).file.close()
    assert not SpoolView(tmp_path).is_sent_from()
    lock = SpoolLock(tmp_path)
    assert lock.acquire()
    assert SpoolView(tmp_path).is_sent_from()
    lock.close()
    assert not SpoolView(tmp_path).is_sent_from()


def until_trouble(folder: Path, has_trouble: bool) -> str:
    deadline = time.monotonic() + 60
    while (SpoolView(folder).trouble() is not None) is not has_trouble:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    trouble = SpoolView(folder).trouble()
    return "" if trouble is None else trouble.message


def test_the_senders_last_error_is_visible_to_others_until_logs_are_delivered(tmp_path: Path) -> None:
    server = Server()
    server.script = [error(503, "The queue is full")] * 2
    with Client(
        "http://logs.test", "t", spool=tmp_path, settings=settings(), transport=httpx.MockTransport(server)
    ) as log:
        log.send("jig")
        assert log.flush(60)
        until_trouble(tmp_path, False)
    link = Switched()
    with Client(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0), transport=link) as log:
        log.send("jig")
        assert until_trouble(tmp_path, True) == "ConnectError: unreachable"
    trouble = SpoolView(tmp_path).trouble()
    assert trouble is not None
    assert trouble.since == pytest.approx(time.time(), abs=600)

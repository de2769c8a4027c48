import dataclasses
import json
import os
import random
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from factory_logs.client.errors import SpoolError, SpoolFullError
from factory_logs.client.outbox import Doubt, Outbox
from factory_logs.client.spool import ROW_BYTES, FilePosition, RejectedLine, Spool
from factory_logs.client.spool_file import WAL_BYTES_KEPT, SpoolFile
from factory_logs.client.spool_lock import SpoolLock
from factory_logs.client.spool_reserve import RESERVE_BYTES
from tests.client.factories import query


def line(number: int) -> bytes:
    return json.dumps({"n": number}).encode()


def outbox_of(spool: Spool) -> Outbox:
    return Outbox(spool.file)


def pending(spool: Spool) -> list[bytes]:
    batch = outbox_of(spool).open(10**6, 10**9, "token a", 0.0)
    return [] if batch is None else list(batch.lines)


def test_another_process_sees_the_logs_in_order(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "spool")
    for number in range(5):
        spool.put([line(number)])
    other = Spool(tmp_path / "deep" / "spool")
    other.put([line(5), line(6)])
    assert pending(spool) == [line(number) for number in range(7)]
    assert other.totals().pending == 7
    assert os.stat(tmp_path / "deep" / "spool").st_mode & 0o077 == 0


def test_a_batch_and_its_key_do_not_change_until_it_is_completed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([line(n) for n in range(5)])
    first = outbox_of(spool).open(3, 10**6, "token a", 100.0)
    spool.put([line(5)])
    again = Outbox(SpoolFile(tmp_path, "full")).open(10, 10**6, "token a", 200.0)
    assert first is not None
    assert first.is_new
    assert again == dataclasses.replace(first, is_new=False)
    assert (first.body, first.started_at) == (b'{"n": 0}\n{"n": 1}\n{"n": 2}\n', 100.0)
    outbox_of(spool).mark_delivered(first)
    outbox_of(spool).mark_delivered(first)
    assert (spool.totals().delivered, spool.totals().pending) == (3, 3)
    following = outbox_of(spool).open(10, 10**6, "token a", 300.0)
    assert following is not None
    assert following.key != first.key
    assert list(following.lines) == [line(3), line(4), line(5)]


def test_a_batch_is_limited_in_bytes_but_has_at_least_one_log(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([b"x" * 100, b"y" * 10, b"z" * 10])
    outbox = outbox_of(spool)
    big = outbox.open(10, 50, "token a", 0.0)
    assert big is not None
    assert list(big.lines) == [b"x" * 100]
    outbox.mark_delivered(big)
    two = outbox.open(10, 22, "token a", 0.0)
    assert two is not None
    assert len(two.lines) == 2


def test_rejected_logs_are_stored_with_their_reason_and_can_be_sent_again_or_dropped(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([line(n) for n in range(4)])
    outbox = outbox_of(spool)
    batch = outbox.open(10, 10**6, "token a", 0.0)
    assert batch is not None
    outbox.reject(batch, {1: "repair_id: there is no repair 9", 3: "bad"})
    assert pending(spool) == [line(0), line(2)]
    rejected = spool.rejected()
    assert [(log.line, log.reason) for log in rejected] == [
        (line(1), "repair_id: there is no repair 9"),
        (line(3), "bad"),
    ]
    assert spool.retry([rejected[0].number, 999]) == 1
    spool.put([line(7)])
    assert spool.drop(None) == 1
    totals = spool.totals()
    assert (totals.pending, totals.rejected, totals.rejected_bytes, totals.dropped) == (4, 0, 0, 1)
    current = outbox.open(10, 10**6, "token a", 0.0)
    assert current is not None
    outbox.mark_delivered(current)
    assert pending(spool) == [line(1), line(7)]


def test_a_full_spool_refuses_logs_until_there_is_space(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=2 * (8 + ROW_BYTES))
    spool.put([line(0)])
    spool.put([line(1)])
    with pytest.raises(SpoolFullError, match="is full"):
        spool.put([line(2)])
    batch = outbox_of(spool).open(1, 100, "token a", 0.0)
    assert batch is not None
    outbox_of(spool).mark_delivered(batch)
    spool.put([line(2)])
    assert spool.totals().pending_bytes == 2 * (8 + ROW_BYTES)


def test_dropping_the_oldest_logs_spares_the_open_batch_and_counts_the_dropped_logs(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=4 * (8 + ROW_BYTES), when_full="drop_oldest")
    spool.put([line(n) for n in range(4)])
    batch = outbox_of(spool).open(2, 100, "token a", 0.0)
    assert batch is not None
    spool.put([line(4)])
    assert spool.totals().dropped == 1
    outbox_of(spool).mark_delivered(batch)
    assert pending(spool) == [line(3), line(4)]


def test_dropping_begins_with_rejected_logs_and_drops_nothing_for_a_log_that_cannot_fit(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=3 * (8 + ROW_BYTES), when_full="drop_oldest")
    spool.put([line(0)], [RejectedLine(line(9), "bad")])
    spool.put([line(1), line(2)])
    totals = spool.totals()
    assert (totals.pending, totals.rejected, totals.dropped) == (3, 0, 1)
    with pytest.raises(SpoolFullError):
        spool.put([b"x" * 1000])
    assert spool.totals() == totals


def test_a_full_disk_is_a_clear_error_and_stores_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([line(0)])
    (pages,) = spool.file.read(query("PRAGMA page_count"))
    spool.file.read(query(f"PRAGMA max_page_count = {pages[0]}"))
    with pytest.raises(SpoolFullError, match=r"the disk of the spool .* is full"):
        spool.put([b"x" * 100_000])
    assert spool.totals().pending == 1
    spool.file.read(query("PRAGMA max_page_count = 1000000"))
    spool.put([line(1)])
    assert pending(spool) == [line(0), line(1)]


@pytest.mark.parametrize("damage", ["garbage", "middle"])
def test_a_damaged_file_is_set_aside_once_and_the_spool_continues(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    spool.put([b"x" * 1000 for _ in range(50)])
    spool.file.close()
    path = tmp_path / "spool-1.sqlite3"
    content = bytearray(path.read_bytes())
    if damage == "garbage":
        content[:] = b"not a database" * 1000
    else:
        content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)

    spool.file.check()
    spool.put([line(1)])
    other = Spool(tmp_path)
    assert pending(other) == [line(1)]
    assert path.read_bytes() == content
    assert (tmp_path / "spool-1.sqlite3.damaged").exists()
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "is damaged" in caplog.text


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE totals SET next_seq = 1",  # a number in the file changed: the next log gets the key of another
        "ALTER TABLE totals RENAME COLUMN pending TO qending",
        "ALTER TABLE records RENAME TO tecords",
        "UPDATE totals SET pending_bytes = x'00'",
        "UPDATE totals SET next_seq = x'00'",
        "DELETE FROM totals",
    ],
)
def test_damage_that_sqlite_reports_as_another_error_is_set_aside_too(tmp_path: Path, damage: str) -> None:
    spool = Spool(tmp_path)
    spool.put([line(0)])
    spool.file.close()
    with closing(sqlite3.connect(tmp_path / "spool-1.sqlite3", isolation_level=None)) as connection:
        connection.execute(damage)
    spool.put([line(1)])
    assert pending(spool) == [line(1)]
    assert (tmp_path / "spool-1.sqlite3.damaged").exists()
    spool.file.close()


def test_a_file_whose_open_batch_has_values_of_other_types_is_set_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([line(0)])
    assert pending(spool) == [line(0)]
    spool.file.run(lambda connection: connection.execute("UPDATE open_batch SET key = x'00'"))
    assert pending(spool) == []
    assert (tmp_path / "spool-1.sqlite3.damaged").exists()
    spool.file.close()


def test_a_file_whose_damaged_names_are_not_text_is_set_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([line(0)])
    spool.file.close()
    path = tmp_path / "spool-1.sqlite3"
    path.write_bytes(path.read_bytes().replace(b"pending_bytes INTEGER", b"pending\xa7bytes \xa7NTEGER"))
    spool.put([line(1)])
    assert pending(spool) == [line(1)]
    spool.file.close()


def test_a_log_whose_damaged_line_is_text_is_sent_as_bytes(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([line(0), line(1)])
    spool.file.run(lambda connection: connection.execute("UPDATE records SET line = CAST(line AS TEXT) WHERE seq = 1"))
    assert pending(spool) == [line(0), line(1)]
    assert pending(spool) == [line(0), line(1)]  # the open batch
    spool.file.close()


class Unreadable:
    """A connection to a file on a disk with a bad sector."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if sql.startswith("SELECT"):
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_READ
            raise error
        return self._connection.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def test_a_file_with_a_sector_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([line(0)])
    assert spool.file._connection is not None
    spool.file._connection = Unreadable(spool.file._connection)  # type: ignore[assignment]
    spool.put([line(1)])
    assert pending(spool) == [line(1)]
    assert (tmp_path / "spool-1.sqlite3.damaged").exists()
    spool.file.close()


@pytest.mark.parametrize("what", ["folder", "file", "moved", "replaced"])
def test_a_spool_that_is_deleted_while_it_is_used_is_created_again(
    tmp_path: Path, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "spool"
    spool, other = Spool(folder), Spool(folder)
    spool.put([line(0)])
    other.put([line(1)])
    if what == "folder":
        shutil.rmtree(folder)
    elif what == "moved":
        folder.rename(tmp_path / "moved")
    else:
        for path in folder.glob("spool-*"):
            path.unlink()
    if what == "replaced":
        third = Spool(folder)
        third.put([line(2)])
        third.file.close()
    spool.put([line(3)])
    spool.file.close()
    kept = [line(2), line(3)] if what == "replaced" else [line(3)]
    assert pending(other) == kept
    assert pending(Spool(folder)) == kept
    assert "was deleted or moved" in caplog.text
    other.file.close()


def test_the_position_in_a_file_is_read_from_a_damaged_spool_so_that_its_lines_are_not_shipped_again(
    tmp_path: Path,
) -> None:
    position = FilePosition("/var/log/jig.ndjson", 7, 1000, b"head")
    spool = Spool(tmp_path)
    spool.put([line(n) for n in range(5000)], position=position)
    spool.file.close()
    damaged = tmp_path / "spool-1.sqlite3"
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4096] = b"\xff" * 4096
    damaged.write_bytes(content)
    spool = Spool(tmp_path)
    spool.file.check()
    assert spool.totals().pending == 0
    assert spool.position(position.path) == position
    assert spool.position("/another") is None
    newer = position._replace(position=2000)
    spool.put([line(1)], position=newer)
    assert spool.position(position.path) == newer
    spool.file.close()
    damaged.write_bytes(b"\xff" * len(content))
    spool = Spool(tmp_path)
    assert spool.position("/another") is None
    spool.file.close()


def test_damage_found_by_one_process_moves_the_others_to_the_new_file(tmp_path: Path) -> None:
    first, second = Spool(tmp_path), Spool(tmp_path)
    first.put([line(0)])
    second.put([line(1)])
    first.file.close()
    (tmp_path / "spool-1.sqlite3.damaged").write_text("as another process has found\n")
    second.put([line(2)])
    first.put([line(3)])
    assert pending(first) == [line(2), line(3)]


def test_a_spool_of_a_newer_version_is_refused_and_not_changed(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "spool-1.sqlite3")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SpoolError, match="newer version"):
        Spool(tmp_path).totals()
    assert [path.name for path in tmp_path.iterdir() if "damaged" in path.name] == []


def test_a_spool_of_an_older_version_is_used_and_older_versions_can_still_use_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.put([b"a", b"b"])
    spool.file.run(lambda connection: connection.execute("DROP TABLE doubt"))
    spool.file.close()
    outbox = Outbox(SpoolFile(tmp_path, "full"))
    batch = outbox.open(1, 100, "ann", 1.0)
    assert batch is not None
    outbox.note_doubt(batch, Doubt(1.0, "refused", 2.0))
    again = outbox.open(1, 100, "ann", 3.0)
    assert again is not None
    assert again.doubt == Doubt(1.0, "refused", 2.0)
    # An older version closes the batch without its note, which then says nothing about the next batch.
    spool.file.run(lambda connection: connection.execute("DELETE FROM open_batch"))
    following = outbox.open(2, 100, "ann", 4.0)
    assert following is not None
    following = outbox.open(2, 100, "ann", 5.0)
    assert following is not None
    assert following.doubt is None
    outbox.note_doubt(following, Doubt(6.0))
    outbox.mark_delivered(following)
    assert spool.file.run(query("SELECT * FROM doubt")) == []
    spool.file.close()


class Interrupted:
    """A connection on which a signal handler runs after the first statement that begins with `begin`."""

    def __init__(self, connection: sqlite3.Connection, begin: str, handler: Callable[[], None]) -> None:
        self._connection = connection
        self._begin = begin
        self._handler = handler

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        cursor = self._connection.execute(sql, *values)
        if sql.startswith(self._begin):
            self._begin = "already interrupted"
            self._handler()
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def press_ctrl_c() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("begin", ["BEGIN", "SELECT", "UPDATE", "COMMIT"])
def test_a_put_that_is_interrupted_at_any_statement_leaves_the_spool_usable(tmp_path: Path, begin: str) -> None:
    spool, other = Spool(tmp_path), Spool(tmp_path)
    spool.put([line(0)])
    other.put([line(1)])
    assert spool.file._connection is not None
    spool.file._connection = Interrupted(spool.file._connection, begin, press_ctrl_c)  # type: ignore[assignment]
    with pytest.raises(KeyboardInterrupt):
        spool.put([line(2)])
    with closing(sqlite3.connect(spool.file.path, timeout=0, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # no lock is held
        connection.execute("ROLLBACK")
    spool.put([line(3)])
    kept = [line(2)] if begin == "COMMIT" else []
    assert pending(other) == [line(0), line(1), *kept, line(3)]
    spool.file.close()
    other.file.close()


@pytest.mark.parametrize("begin", ["BEGIN", "SELECT", "UPDATE", "COMMIT"])
def test_a_signal_handler_may_store_a_log_while_a_put_is_at_any_statement(tmp_path: Path, begin: str) -> None:
    spool = Spool(tmp_path)
    spool.put([line(0)])
    assert spool.file._connection is not None
    spool.file._connection = Interrupted(spool.file._connection, begin, lambda: spool.put([line(1)]))  # type: ignore[assignment]
    spool.put([line(2)])
    assert sorted(pending(spool)) == [line(0), line(1), line(2)]
    assert spool.totals().pending == 3
    spool.file.close()


@pytest.mark.parametrize("begin", ["BEGIN", "SELECT", "UPDATE", "COMMIT"])
def test_a_signal_handler_may_close_the_spool_during_a_put(tmp_path: Path, begin: str) -> None:
    spool = Spool(tmp_path)
    spool.put([line(0)])
    assert spool.file._connection is not None
    spool.file._connection = Interrupted(spool.file._connection, begin, spool.file.close)  # type: ignore[assignment]
    spool.put([line(1)])
    assert pending(spool) == [line(0), line(1)]
    spool.file.close()


def test_many_threads_and_connections_put_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    shared = Spool(tmp_path, fsync="normal")

    def put(spool: Spool, start: int) -> None:
        for number in range(start, start + 25):
            spool.put([line(number)])

    spools = [shared, shared, Spool(tmp_path, fsync="normal"), Spool(tmp_path, fsync="full")]
    threads = [threading.Thread(target=put, args=(spool, index * 25)) for index, spool in enumerate(spools)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(pending(shared)) == sorted(line(number) for number in range(100))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_and_its_parent_use_the_spool_side_by_side(tmp_path: Path) -> None:
    spool, lock = Spool(tmp_path), SpoolLock(tmp_path)
    spool.put([line(0)])
    assert lock.acquire()
    child = os.fork()
    if child == 0:
        try:
            spool.put([line(1)])
            held = lock.held or lock.acquire()
        except BaseException:  # noqa: BLE001 - the child must end here in any case
            os._exit(2)
        os._exit(int(held))
    spool.put([line(2)])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    spool.put([line(3)])
    assert sorted(pending(spool)) == [line(0), line(1), line(2), line(3)]
    assert not SpoolLock(tmp_path).acquire()
    lock.close()


def test_the_position_in_a_file_is_stored_with_its_lines(tmp_path: Path) -> None:
    spool = Spool(tmp_path, max_bytes=500)
    position = FilePosition("/var/log/jig.ndjson", 2**63 - 1, 100, b"head")
    spool.put([line(0)], [], position)
    with pytest.raises(SpoolFullError):
        spool.put([b"x" * 1000], [], position._replace(position=1100))
    assert spool.position(position.path) == position
    assert spool.position("/other") is None


@pytest.mark.parametrize(("fsync", "level"), [("full", 2), ("normal", 1)])
def test_the_fsync_setting_is_passed_to_sqlite(tmp_path: Path, fsync: str, level: int) -> None:
    file = SpoolFile(tmp_path, fsync)  # type: ignore[arg-type]
    assert file.read(query("PRAGMA synchronous")) == [(level,)]
    assert file.read(query("PRAGMA journal_mode")) == [("wal",)]
    file.close()


@pytest.mark.parametrize("seed", range(5))
def test_a_power_cut_during_a_write_leaves_the_earlier_logs(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    spool = Spool(tmp_path / "spool")
    for number in range(40):
        spool.put([line(number)])
    after = tmp_path / "after the cut"
    shutil.copytree(tmp_path / "spool", after, ignore=shutil.ignore_patterns("*-shm"))
    wal = after / "spool-1.sqlite3-wal"
    whole = wal.stat().st_size
    cut = rng.randrange(whole // 2, whole)
    with wal.open("r+b") as file:
        file.truncate(cut)
        file.seek(cut - 100)
        file.write(rng.randbytes(100))  # the last sector is torn

    restarted = Spool(after)
    restarted.file.check()
    left = pending(restarted)
    assert left == [line(number) for number in range(len(left))]
    assert 0 < len(left) < 40
    assert restarted.totals().pending == len(left)
    restarted.put([line(99)])
    assert not list(after.glob("*.damaged"))
    spool.file.close()
    restarted.file.close()


def test_the_used_disk_space_is_limited_for_any_number_of_logs(tmp_path: Path) -> None:
    bound = 2 * 1024 * 1024
    spool = Spool(tmp_path, fsync="normal", max_bytes=bound, when_full="drop_oldest")
    for _ in range(60):
        spool.put([b"x" * 1000] * 500)
    used = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert used < 1.3 * bound + WAL_BYTES_KEPT + RESERVE_BYTES
    totals = spool.totals()
    assert totals.pending + totals.dropped == 30_000
    assert totals.pending_bytes <= bound
    spool.file.close()

"""The client as the script of a jig uses it, with a real server."""

import asyncio
import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Any

import pytest

from factory_logs.client import Client, ClientSettings, ClosedError, InvalidLogError, SpoolError, SpoolFullError
from factory_logs.client import client as client_module
from factory_logs.client.spool import ROW_BYTES
from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository
from factory_logs.db.users import UserRepository
from tests.client.factories import NOWHERE, QUICK, query, settings
from tests.client.links import Hanging, Switched
from tests.client.servers import Server
from tests.devices import MAX_BODY_BYTES, Rows

Numbers = Callable[[], list[int]]


def test_logs_arrive_unchanged_and_in_order(shared_server: Server, token: str, tmp_path: Path, rows: Rows) -> None:
    with Client(shared_server.url, token, spool=tmp_path / "spool", settings=QUICK) as log:
        log.send("jig", product_imei="352099001761481", tags={"jig_id": "J-07"}, fields={"passed": True, "v": 3.28})
        log.send("jig", timestamp="2024-01-31T21:45:00+08:00", fields=[1, None, "ü"])
        assert log.send_many([{"app_name": "a", "timestamp": 0}, {"app_name": "b", "fields": 2**64 - 1}]) == 2
        assert log.flush(120)
        assert log.status().totals.delivered == 4
    whole = rows("SELECT * FROM factory_logs ORDER BY factory_log_id")
    assert [row["app_name"] for row in whole] == ["jig", "jig", "a", "b"]
    assert (whole[0]["product_imei"], whole[0]["created_by"]) == ("352099001761481", "jig-07")
    assert (whole[0]["tags"], whole[0]["fields"]) == ('{"jig_id": "J-07"}', '{"v": 3.28, "passed": true}')
    assert (str(whole[1]["timestamp"]), whole[1]["fields"]) == ("2024-01-31 13:45:00", '[1, null, "ü"]')
    assert (str(whole[2]["timestamp"]), whole[3]["fields"]) == ("1970-01-01 00:00:00", "18446744073709551615")
    assert whole[0]["timestamp"] < whole[3]["timestamp"] <= whole[3]["created_at"]


def test_send_returns_while_the_server_hangs_and_its_logs_are_on_disk(tmp_path: Path) -> None:
    link = Hanging()
    with Client(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0), transport=link) as log:
        log.send("jig")
        assert link.entered.wait(300)
        for _ in range(20):
            log.send("jig")
        assert link.is_hanging
        with Client(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0)) as other:
            assert other.status().totals.pending == 21
        link.let_go.set()


def test_a_log_that_the_server_would_refuse_never_enters_the_spool(tmp_path: Path) -> None:
    with Client(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0)) as log:
        with pytest.raises(InvalidLogError, match="product_imei: expected exactly 15 digits"):
            log.send("jig", product_imei="12345")
        with pytest.raises(InvalidLogError, match="is not a known field"):
            log.send_many([{"app_name": "jig"}, {"app_name": "jig", "colour": "red"}])
        with pytest.raises(InvalidLogError, match="over the limit of 262144 bytes"):
            log.send("jig", fields="x" * 256 * 1024)
        assert log.status().totals.pending == 0


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_script_that_ends_without_closing_has_delivered_its_logs(
    shared_server: Server, token: str, tmp_path: Path, numbers: Numbers, is_dropped: bool
) -> None:
    script = f"""
from factory_logs.client import Client, ClientSettings

def main():
    log = Client({shared_server.url!r}, {token!r}, spool={str(tmp_path / "spool")!r},
                 settings=ClientSettings(exit_seconds=300))
    log.send("jig", fields={{"n": 7}})
    return log

log = main()
if {is_dropped}:
    del log
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=300)
    assert numbers() == [7]


def test_the_next_script_delivers_the_logs_of_one_without_a_link(
    shared_server: Server, token: str, tmp_path: Path, numbers: Numbers
) -> None:
    with Client(NOWHERE, token, spool=tmp_path, settings=QUICK) as log:
        log.send("jig", fields={"n": 1})
        assert not log.flush(0.3)
        assert "refused" in str(log.status().trouble)
    with Client(shared_server.url, token, spool=tmp_path, settings=QUICK) as log:
        log.send("jig", fields={"n": 2})
        assert log.flush(120)
        assert log.status().trouble is None
    assert numbers() == [1, 2]


def test_a_client_reports_the_trouble_of_the_process_that_sends(tmp_path: Path) -> None:
    with Client(NOWHERE, "t", spool=tmp_path, settings=QUICK) as first:
        first.send("jig")
        while first.status().trouble is None:
            first.flush(0.1)
        with Client(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=3600)) as second:
            second.send("jig")
            while second.status().trouble is None:
                second.flush(0.1)
            assert "refused" in str(second.status().trouble)


def test_a_client_whose_spool_cannot_be_used_any_more_can_be_closed(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    link = Hanging()
    log = Client(NOWHERE, "t", spool=folder, settings=settings(exit_seconds=3600), transport=link)
    log.send("jig")
    assert link.entered.wait(300)  # now the sender does not create the folder again
    shutil.rmtree(folder)
    folder.write_text("not a folder")
    with pytest.raises(SpoolError):
        log.send("jig")
    link.let_go.set()
    log.close()
    assert not log._sender._thread.is_alive()


ROOM_FOR_TWO = 2 * (len(b'{"app_name":"jig","timestamp":"2024-01-01 00:00:00","fields":{"n":1}}') + ROW_BYTES)


def numbered(number: int) -> dict[str, Any]:
    return {"app_name": "jig", "timestamp": "2024-01-01", "fields": {"n": number}}


def test_with_the_policy_block_send_waits_until_a_full_spool_has_space(
    shared_server: Server, token: str, tmp_path: Path, numbers: Numbers
) -> None:
    link = Switched()
    chosen = settings(max_spool_bytes=ROOM_FOR_TWO, block_seconds=60)
    with Client(shared_server.url, token, spool=tmp_path, settings=chosen, transport=link) as log:
        log.send_many([numbered(1), numbered(2)])
        third = threading.Thread(target=lambda: log.send(**numbered(3)))
        third.start()
        third.join(0.3)
        assert third.is_alive()
        assert log.status().totals.pending == 2
        link.up = True
        third.join(60)
        assert not third.is_alive()
        assert log.flush(120)
        assert log.status().totals.dropped == 0
    assert numbers() == [1, 2, 3]


def test_a_wait_for_space_that_times_out_is_an_error_and_the_server_gets_few_requests_meanwhile(tmp_path: Path) -> None:
    link = Switched()
    chosen = settings(max_spool_bytes=ROOM_FOR_TWO, block_seconds=1.0, exit_seconds=0,
                      backoff_base_seconds=60, backoff_cap_seconds=60)  # fmt: skip
    with Client(NOWHERE, "t", spool=tmp_path, settings=chosen, transport=link) as log:
        log.send_many([numbered(1), numbered(2)])
        with pytest.raises(SpoolFullError, match=rf"is full: it holds {ROOM_FOR_TWO} of at most {ROOM_FOR_TWO} bytes"):
            log.send(**numbered(3))
        assert 1 <= link.attempts <= 4
        assert log.status().totals.pending == 2


def test_with_the_policy_drop_oldest_the_oldest_logs_are_dropped_and_counted(
    shared_server: Server, token: str, tmp_path: Path, numbers: Numbers
) -> None:
    link = Switched()
    chosen = settings(max_spool_bytes=ROOM_FOR_TWO, when_full="drop_oldest")
    with Client(shared_server.url, token, spool=tmp_path, settings=chosen, transport=link) as log:
        for number in range(1, 6):
            log.send(**numbered(number))
        assert (log.status().totals.pending, log.status().totals.dropped) == (2, 3)
        link.up = True
        assert log.flush(120)
    assert numbers() == [4, 5]


def test_a_batch_over_the_servers_limit_is_split(
    shared_server: Server, token: str, tmp_path: Path, numbers: Numbers
) -> None:
    link = Switched(up=True)
    chosen = settings(max_batch_bytes=10 * MAX_BODY_BYTES, encoding="identity", max_record_bytes=2 * MAX_BODY_BYTES)
    size = MAX_BODY_BYTES // 3
    with Client(shared_server.url, token, spool=tmp_path, settings=chosen, transport=link) as log:
        logs: list[dict[str, Any]] = [{"app_name": "jig", "fields": {"n": n, "x": "x" * size}} for n in range(5)]
        logs.insert(2, {"app_name": "jig", "fields": {"n": 99, "x": "x" * MAX_BODY_BYTES}})
        log.send_many(logs)
        assert log.flush(120)
        (rejected,) = log.spool.rejected()
        assert rejected.reason == f"The body is over the limit of {MAX_BODY_BYTES} bytes"
        assert log.status().totals.delivered == 5
    assert numbers() == [0, 1, 2, 3, 4]
    assert link.posts > 4


def test_logs_that_the_server_rejects_are_set_aside_with_its_error_and_can_be_sent_again(
    shared_server: Server, token: str, tmp_path: Path, rows: Rows, numbers: Numbers
) -> None:
    with Client(shared_server.url, token, spool=tmp_path, settings=settings(linger_seconds=0.2)) as log:
        log.send("jig", fields={"n": 1})
        log.send("jig", fields={"n": 2}, repair_id=9)
        log.send("jig", fields={"n": 3})
        assert log.flush(120)
        assert numbers() == [1, 3]
        (rejected,) = log.spool.rejected()
        assert rejected.reason.startswith("repair_id: ")
        rows("INSERT INTO repairs (repair_id, product_imei) VALUES (9, '352099001761481')")
        assert log.spool.retry([rejected.number]) == 1
        assert log.flush(120)
        assert log.status().totals.rejected == 0
    assert numbers() == [1, 3, 2]


async def test_a_login_renews_its_token(shared_server: Server, token: str, tmp_path: Path, database: Database) -> None:
    def send(log: Client) -> None:
        log.send("jig")
        assert log.flush(120)

    user = await UserRepository(database).get_by_name("jig-07")
    assert user is not None
    log = Client(shared_server.url, username="jig-07", password="open sesame", spool=tmp_path, settings=QUICK)
    send(log)
    assert await TokenRepository(database).revoke_all(user.user_id) == 2  # the login's and the fixture's
    await asyncio.sleep(0.3)  # longer than the server caches a token
    send(log)
    log.close()
    assert log.status().totals.delivered == 2
    assert await TokenRepository(database).revoke_all(user.user_id) == 1


def test_two_clients_share_a_spool_and_each_log_arrives_once_in_its_clients_order(
    shared_server: Server, token: str, tmp_path: Path, numbers: Numbers
) -> None:
    with (
        Client(shared_server.url, token, spool=tmp_path, settings=QUICK) as first,
        Client(shared_server.url, token, spool=tmp_path, settings=QUICK) as second,
    ):
        threads = [
            threading.Thread(target=lambda log, start: [log.send(**numbered(start + n)) for n in range(50)], args=args)
            for args in ((first, 0), (second, 1000))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert first.flush(120)
        assert second.flush(120)
    found = numbers()
    assert [number for number in found if number < 1000] == list(range(50))
    assert [number for number in found if number >= 1000] == list(range(1000, 1050))


def _send_in_a_child(log: Client, start: int) -> None:
    for number in range(start, start + 10):
        log.send(**numbered(number))
    assert log.flush(120)
    log.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_forked_children_can_use_their_parents_client(
    shared_server: Server, token: str, tmp_path: Path, numbers: Numbers
) -> None:
    fork = multiprocessing.get_context("fork")
    with Client(shared_server.url, token, spool=tmp_path, settings=QUICK) as log:
        children = []
        for start in (100, 200):
            log.send(**numbered(start // 100))
            child = fork.Process(target=_send_in_a_child, args=(log, start))
            child.start()
            children.append(child)
        for child in children:
            child.join(60)
        assert [child.exitcode for child in children] == [0, 0]
        log.send(**numbered(3))
        assert log.flush(120)
    found = numbers()
    assert sorted(found) == [1, 2, 3, *range(100, 110), *range(200, 210)]
    for start in (100, 200):
        assert [number for number in found if start <= number < start + 10] == list(range(start, start + 10))


SIGNALLED = """
import random, signal, sys
from factory_logs.client import Client, ClientSettings

log = Client("http://127.0.0.1:9", "t", spool=sys.argv[1], settings=ClientSettings(fsync="normal", sync_seconds=0.01))
handled = sent = 0

def handle(*_):
    global handled
    handled += 1
    log.send("jig", fields={"handled": handled})

signal.signal(signal.SIGALRM, handle)
moments = random.Random(1)
while handled < 500:
    signal.setitimer(signal.ITIMER_REAL, moments.uniform(0.00001, 0.002))
    log.send("jig", fields={"sent": sent})
    sent += 1
signal.setitimer(signal.ITIMER_REAL, 0)
log.close()
print(handled + sent)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no timers that send signals")
def test_a_signal_handler_may_send_logs_at_any_time(tmp_path: Path) -> None:
    script = subprocess.run(
        [sys.executable, "-c", SIGNALLED, str(tmp_path)], check=True, capture_output=True, text=True, timeout=600
    )
    with closing(sqlite3.connect(tmp_path / "spool-1.sqlite3")) as connection:
        (stored,) = connection.execute("SELECT count(*) FROM records").fetchone()
    assert stored == int(script.stdout)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a process that may become another user")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_folder_that_may_not_be_written_is_an_error_at_once(short_tmp: Path) -> None:
    folder = short_tmp / "read-only"
    folder.mkdir(mode=0o555)

    def attempt() -> None:
        if os.geteuid() == 0:
            os.setuid(65534)  # root may write everywhere
        with pytest.raises(SpoolError, match="cannot be used"):
            Client(NOWHERE, "t", spool=folder)

    child = multiprocessing.get_context("fork").Process(target=attempt)
    child.start()
    child.join(60)
    assert child.exitcode == 0


def times(log: Client) -> list[datetime]:
    rows = log.spool.file.read(query("SELECT line FROM records ORDER BY seq"))
    return [datetime.fromisoformat(json.loads(line)["timestamp"]) for (line,) in rows]


def test_a_log_carries_the_clocks_time_also_after_the_clock_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock(datetime):
        seconds = 1_800_000_000.0

        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls.fromtimestamp(cls.seconds, tz)

    monkeypatch.setattr(client_module, "datetime", Clock)
    with Client(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0), transport=Switched()) as log:
        log.send("jig")
        log.send("jig")
        Clock.seconds -= 3600
        log.send("jig")
        Clock.seconds -= 0.010  # NTP sets the clock
        log.send("jig")
        found = [(time.replace(tzinfo=UTC).timestamp() - 1_800_000_000) * 1e6 for time in times(log)]
    assert [round(micros) for micros in found] == [0, 1, -3_600_000_000, -3_599_999_999]


def test_logs_of_several_threads_get_a_microsecond_of_their_own_each(tmp_path: Path) -> None:
    with Client(NOWHERE, "t", spool=tmp_path, settings=settings(exit_seconds=0), transport=Switched()) as log:
        found: list[datetime] = []
        threads = [threading.Thread(target=lambda: found.extend([log.now() for _ in range(2000)])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(found)) == 8000


def test_a_closed_client_raises_a_clear_error(tmp_path: Path) -> None:
    log = Client(NOWHERE, "t", spool=tmp_path)
    log.close()
    log.close()
    with pytest.raises(ClosedError):
        log.send("jig")


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("logs.example.com", {"token": "t"}),
        ("ftp://logs.example.com", {"token": "t"}),
        ("http://", {"token": "t"}),
        (NOWHERE, {}),
        (NOWHERE, {"token": "a\nb"}),
        (NOWHERE, {"token": ""}),
        (NOWHERE, {"token": "t", "username": "jig", "password": "p"}),
        (NOWHERE, {"username": "jig"}),
        (NOWHERE, {"token": "t", "token_file": "f"}),
    ],
)
def test_a_wrong_url_or_not_exactly_one_way_to_a_token_is_a_value_error(
    tmp_path: Path, url: str, arguments: dict[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"URL|give one of|token must be|both username and password"):
        Client(url, spool=tmp_path / "spool", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "spool").exists()


@pytest.mark.parametrize("name", ["max_spool_bytes", "max_batch_records", "max_batch_bytes", "poll_seconds"])
def test_a_setting_that_makes_no_sense_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        ClientSettings.model_validate({name: 0})

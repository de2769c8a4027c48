import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from factory_logs.client import Client, FactoryLogsHandler
from tests.client.factories import NOWHERE, query, settings
from tests.client.links import Switched
from tests.client.servers import Server
from tests.devices import Rows


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    """Return a client without a link, so that the log messages stay in the spool."""
    with Client(NOWHERE, "t", spool=tmp_path / "spool", settings=settings(exit_seconds=0), transport=Switched()) as log:
        yield log


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.Logger("jig.power")
    yield logger
    for handler in logger.handlers:
        handler.close()


def spooled(client: Client) -> list[dict[str, Any]]:
    rows = client.spool.file.read(query("SELECT line FROM records ORDER BY seq"))
    return [json.loads(line) for (line,) in rows]


def test_a_log_record_becomes_a_log(client: Client, logger: logging.Logger) -> None:
    logger.addHandler(FactoryLogsHandler(client, "jig", tags={"jig_id": "J-07"}))
    logger.info("voltage is %s", 3.28)
    logger.error("no battery", extra={
        "product_imei": "352099001761481", "repair_id": 7, "tags": {"user": "li"}, "fields": {"v": 0},
    })  # fmt: skip
    first, second = spooled(client)
    assert (first["app_name"], first["tags"]) == ("jig", {"jig_id": "J-07"})
    assert first["fields"] == {"message": "voltage is 3.28", "level": "INFO", "logger": "jig.power"}
    assert (second["product_imei"], second["repair_id"]) == ("352099001761481", 7)
    assert second["tags"] == {"jig_id": "J-07", "user": "li"}
    assert second["fields"] == {
        "message": "no battery", "level": "ERROR", "logger": "jig.power", "passed": False, "v": 0,
    }  # fmt: skip


def test_a_traceback_is_part_of_the_message(client: Client, logger: logging.Logger) -> None:
    logger.addHandler(FactoryLogsHandler(client, "jig"))
    try:
        raise RuntimeError("relay stuck")
    except RuntimeError:
        logger.exception("test failed")
    (log,) = spooled(client)
    assert "tags" not in log
    assert log["fields"]["message"].startswith("test failed\nTraceback")
    assert log["fields"]["message"].endswith("RuntimeError: relay stuck")


def test_a_message_with_characters_that_cannot_be_stored_is_not_lost(client: Client, logger: logging.Logger) -> None:
    logger.addHandler(FactoryLogsHandler(client, "jig"))
    logger.info("a\0b \ud800 ü %s", "x" * 100_000)
    (log,) = spooled(client)
    assert log["fields"]["message"].startswith("a\\0b \\ud800 ü xxx")
    assert len(log["fields"]["message"]) < 40_000


def test_only_records_of_its_level_and_above_are_sent(client: Client, logger: logging.Logger) -> None:
    logger.addHandler(FactoryLogsHandler(client, "jig", level=logging.WARNING))
    logger.info("quiet")
    logger.warning("loud")
    assert [log["fields"]["level"] for log in spooled(client)] == ["WARNING"]


def test_a_record_that_cannot_be_sent_is_reported_and_the_script_continues(
    client: Client, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(FactoryLogsHandler(client, "jig"))
    logger.info("odd", extra={"product_imei": "12"})
    assert "expected exactly 15 digits" in capsys.readouterr().err
    logger.info("good")
    assert len(spooled(client)) == 1


def test_a_sender_that_logs_does_not_wait_for_a_record_that_waits_for_it(client: Client) -> None:
    # While the spool is full, emit() waits inside the handler's lock for the sender to free space.
    handler = FactoryLogsHandler(client, "jig")
    of_sender = logging.getLogger("factory_logs.client")
    of_sender.addHandler(handler)
    try:
        with handler.lock:  # type: ignore[union-attr]
            client.send("jig")
            deadline = time.monotonic() + 60
            while (
                client.status().trouble is None and time.monotonic() < deadline
            ):  # the sender logs before it sets this
                time.sleep(0.01)
            trouble = client.status().trouble
    finally:
        of_sender.removeHandler(handler)
    assert trouble is not None


def test_a_thread_that_logs_about_the_spool_does_not_wait_for_a_record_that_waits_for_the_spool(
    client: Client, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = FactoryLogsHandler(client, "jig")
    of_client = logging.getLogger("factory_logs.client")
    of_client.addHandler(handler)
    try:
        with handler.lock:  # type: ignore[union-attr]
            client.folder.rename(tmp_path / "moved")
            other = threading.Thread(target=client.send, args=("jig",), daemon=True)
            other.start()
            other.join(60)
    finally:
        of_client.removeHandler(handler)
    assert "was deleted or moved" in caplog.text
    assert not other.is_alive()
    assert len(spooled(client)) == 1


def test_log_records_of_senders_are_not_sent_as_each_would_cause_another(
    shared_server: Server, token: str, tmp_path: Path, rows: Rows
) -> None:
    root = logging.getLogger()
    level = root.level
    with (
        Client(shared_server.url, token, spool=tmp_path / "a", settings=settings()) as first,
        Client(shared_server.url, token, spool=tmp_path / "b", settings=settings()) as second,
    ):
        handlers = [FactoryLogsHandler(first, "first"), FactoryLogsHandler(second, "second")]
        root.setLevel(logging.DEBUG)  # including those of the HTTP library
        for handler in handlers:
            root.addHandler(handler)
        try:
            logging.getLogger("jig").info("once")
            for _ in range(3):
                assert first.flush(120)
                assert second.flush(120)
        finally:
            root.setLevel(level)
            for handler in handlers:
                root.removeHandler(handler)
    found = rows("SELECT app_name, fields->>'message' m FROM factory_logs WHERE fields->>'logger' <> 'asyncio'")
    assert sorted((row["app_name"], row["m"]) for row in found) == [("first", "once"), ("second", "once")]

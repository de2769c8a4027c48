"""A batch whose response was lost and whose key has expired still arrives exactly once, on a real server."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from factory_logs.client.delivery import ServerLink
from factory_logs.client.outbox import Outbox
from factory_logs.client.sender import QUIET_SECONDS, Sender
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Spool
from factory_logs.client.token_source import FixedToken
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.client.factories import Clock, drain
from tests.client.links import Switched
from tests.client.servers import Server

STRICTER = {"max_body_records": 2, "max_record_bytes": 100, "max_body_bytes": 100}
"""Limits of a server that refuses the batch of this test."""
EXPIRED = ClientSettings(key_life_seconds=30)
ODD = {"big": 2**64 - 1, "float": 1e23, "zero": 0.0, "text": "ü\u2028", "list": [1.5, None, True], "": {}}


@pytest.mark.parametrize("was_stored", [True, False])
def test_a_batch_in_doubt_is_sent_again_only_if_it_is_not_stored(
    shared_server: Server, token: str, tmp_path: Path, numbers: Callable[[], list[int]], was_stored: bool
) -> None:
    spool, transport, clock = Spool(tmp_path), Switched(up=was_stored, losing=True), Clock()
    for number in range(7):
        log = {"app_name": "jig", "timestamp": "2024-01-31 13:45:00.000001", "fields": {"n": number, **ODD}}
        spool.put([json.dumps(log).encode()])
    outbox = Outbox(spool.file)
    first = ServerLink(shared_server.url, FixedToken(token), ClientSettings(), transport)
    batch = outbox.open(10, 10_000, FixedToken(token).account(), first.clock.now() - 60)
    assert batch is not None
    first.deliver(batch)
    assert len(numbers()) == (7 if was_stored else 0)

    transport.up, transport.losing = True, False
    sender = Sender(outbox, ServerLink(shared_server.url, FixedToken(token), EXPIRED, transport), EXPIRED, clock=clock)
    assert sender.step().firm
    clock.seconds += QUIET_SECONDS
    if not was_stored:
        assert sender.step().firm
        clock.seconds += QUIET_SECONDS
    sender.step()
    again = Sender(
        outbox, ServerLink(shared_server.url, FixedToken(token), ClientSettings(), transport), ClientSettings()
    )
    drain(again)
    assert numbers() == list(range(7))
    assert (spool.totals().delivered, spool.totals().pending, spool.totals().rejected) == (7, 0, 0)
    spool.file.close()
    transport.close()


@pytest.fixture
async def storing_token(database: Database) -> str:
    """Return a token that only stores logs, so the client cannot look for them."""
    user = await UserRepository(database).create("jig-08", "Jig 8", None, Level.SYSTEM)
    return await issue_token(database, user.user_id, expires_at=None, only_write=True)


@pytest.mark.slow
@pytest.mark.parametrize("was_stored", [True, False])
@pytest.mark.parametrize("limit", STRICTER)
def test_a_server_that_has_become_stricter_after_a_lost_response_doubles_no_log(
    shared_server: Server,
    migrated_url: str,
    storing_token: str,
    tmp_path: Path,
    numbers: Callable[[], list[int]],
    limit: str,
    was_stored: bool,
) -> None:
    only_stores = FixedToken(storing_token)
    spool, clock = Spool(tmp_path / "spool"), Clock()
    texts = ["", "", "x" * 200]
    for number, text in enumerate(texts):
        log = {"app_name": "jig", "timestamp": "2024-01-31 13:45:00", "fields": {"n": number, "text": text}}
        spool.put([json.dumps(log).encode()])
    uncompressed = ClientSettings(encoding="identity")
    losing = Switched(up=was_stored, losing=True)
    first = ServerLink(shared_server.url, only_stores, uncompressed, losing)
    Sender(Outbox(spool.file), first, uncompressed, clock=clock).step()
    assert len(numbers()) == (len(texts) if was_stored else 0)

    stricter = Server(migrated_url, tmp_path / "log", **{limit: STRICTER[limit]})
    stricter.start()
    stricter.wait()
    link = ServerLink(stricter.url, only_stores, uncompressed)
    drain(Sender(Outbox(spool.file), link, uncompressed, clock=clock))
    stricter.stop()
    totals = spool.totals()
    if was_stored:
        assert (totals.delivered, totals.rejected, totals.pending) == (3, 0, 0)
    else:
        assert totals.pending == 0
        assert totals.delivered + totals.rejected == 3
        assert all("in doubt" not in log.reason for log in spool.rejected())
    assert len(numbers()) == totals.delivered == len(set(numbers()))
    spool.file.close()
    losing.close()
    link.close()
    first.close()

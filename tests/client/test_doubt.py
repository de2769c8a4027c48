"""A batch whose answer was lost and whose key is too old by now, against a real server: it arrives once even so."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from factory_logs.client.credentials import FixedToken
from factory_logs.client.delivery import Link
from factory_logs.client.outbox import Outbox
from factory_logs.client.sender import QUIET_SECONDS, Sender
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Spool
from tests.client.links import Switched
from tests.client.servers import Server
from tests.client.test_sender import Clock, drain

EXPIRED = ClientSettings(key_life_seconds=30)
ODD = {"big": 2**64 - 1, "float": 1e23, "zero": 0.0, "text": "ü\u2028", "list": [1.5, None, True], "": {}}


@pytest.mark.parametrize("was_stored", [True, False])
def test_it_is_sent_again_only_where_it_is_not_there(
    shared_server: Server, token: str, tmp_path: Path, numbers: Callable[[], list[int]], was_stored: bool
) -> None:
    spool, transport, clock = Spool(tmp_path), Switched(up=was_stored, losing=True), Clock()
    for number in range(7):
        log = {"app_name": "jig", "timestamp": "2024-01-31 13:45:00.000001", "fields": {"n": number, **ODD}}
        spool.put([json.dumps(log).encode()])
    outbox = Outbox(spool.file)
    first = Link(shared_server.url, FixedToken(token), ClientSettings(), transport)
    batch = outbox.open(10, 10_000, FixedToken(token).account(), first.clock.now() - 60)
    assert batch is not None
    first.deliver(batch)
    assert len(numbers()) == (7 if was_stored else 0)

    transport.up, transport.losing = True, False
    sender = Sender(outbox, Link(shared_server.url, FixedToken(token), EXPIRED, transport), EXPIRED, clock=clock)
    assert sender.step().firm
    clock.seconds += QUIET_SECONDS
    sender.step()
    again = Sender(outbox, Link(shared_server.url, FixedToken(token), ClientSettings(), transport), ClientSettings())
    drain(again)
    assert numbers() == list(range(7))
    assert (spool.totals().delivered, spool.totals().pending, spool.totals().rejected) == (7, 0, 0)
    spool.file.close()
    transport.close()

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
from tests.client.factories import Clock, drain
from tests.client.links import Switched
from tests.client.servers import Server

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

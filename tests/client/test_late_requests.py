"""A request that stops on its way to a real server: its response proves nothing about the logs, nor about an earlier
try."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from factory_logs.client.delivery import ServerLink
from factory_logs.client.outbox import Outbox
from factory_logs.client.sender import Sender
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Spool
from factory_logs.client.token_source import FixedToken
from tests.client.factories import drain
from tests.client.links import Stalling, Switched
from tests.client.servers import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def impatient(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(migrated_url, tmp_path_factory.mktemp("server") / "log", body_idle_seconds=0.5)
    server.start()
    server.wait()
    yield server
    server.stop()


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("was_stored", [True, False])
def test_logs_arrive_once_and_none_is_set_aside(
    impatient: Server, token: str, tmp_path: Path, numbers: Callable[[], list[int]], count: int, was_stored: bool
) -> None:
    spool, losing, stalling = Spool(tmp_path), Switched(up=True, losing=True), Stalling()
    for number in range(count):
        spool.put([json.dumps({"app_name": "a", "timestamp": "2024-01-31", "fields": {"n": number}}).encode()])

    def sender_over(transport: httpx.BaseTransport) -> Sender:
        link = ServerLink(impatient.url, FixedToken(token), ClientSettings(), transport)
        return Sender(Outbox(spool.file), link, ClientSettings())

    if was_stored:
        sender_over(losing).step()
    sender = sender_over(stalling)
    sender.step()
    assert [response.status_code for response in stalling.responses] == [408]
    assert stalling.responses[0].headers["connection"] == "close"
    assert "The body did not arrive in time" in str(sender.trouble)
    assert (spool.totals().pending, spool.totals().rejected) == (count, 0)
    assert len(numbers()) == (count if was_stored else 0)

    with httpx.HTTPTransport() as working:
        drain(sender_over(working))
    assert numbers() == list(range(count))
    assert (spool.totals().delivered, spool.totals().pending, spool.totals().rejected) == (count, 0, 0)
    spool.file.close()
    losing.close()
    stalling.close()

"""Two hours without a link, in simulated time: the 100,000 logs that have accumulated are sent in full batches."""

from pathlib import Path

import pytest

from factory_logs.client.delivery import ServerLink
from factory_logs.client.outbox import Outbox
from factory_logs.client.sender import Sender
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Spool
from factory_logs.client.spool_line import log_line
from factory_logs.client.token_source import FixedToken
from factory_logs.schemas.record_limits import RecordLimits
from tests.client.links import Switched
from tests.client.servers import Server
from tests.devices import Rows

LOGS = 100_000
OFFLINE_SECONDS = 2 * 3600.0
SETTINGS = ClientSettings()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path, fsync="normal", max_bytes=SETTINGS.max_spool_bytes)


def gather(spool: Spool, start: int, end: int) -> None:
    limits = RecordLimits(SETTINGS.max_record_bytes, SETTINGS.max_nesting)
    for first in range(start, end, 5000):
        numbers = range(first, min(first + 5000, end))
        record = {"app_name": "jig", "timestamp": "2024-01-31T13:45:00Z", "tags": {"jig_id": "J-07"}}
        spool.put([log_line(record | {"fields": {"n": number}}, limits) for number in numbers])


def test_the_backlog_is_sent_in_full_batches_once_and_in_order(
    shared_server: Server, token: str, spool: Spool, rows: Rows
) -> None:
    transport = Switched(up=True, losing=True)
    link = ServerLink(shared_server.url, FixedToken(token), SETTINGS, transport)
    sender = Sender(Outbox(spool.file), link, SETTINGS)
    gather(spool, 0, 1000)
    sender.step()  # the link breaks during this one: the server has stored it, but the client got no response
    transport.up = transport.losing = False

    before, waited = transport.attempts, 0.0
    gather(spool, 1000, LOGS)
    while waited < OFFLINE_SECONDS:
        waited += sender.step().seconds
    # The wait is random up to a minute, about 30 seconds on average.
    assert transport.attempts - before < 3 * OFFLINE_SECONDS / SETTINGS.backoff_cap_seconds + 30
    assert spool.totals().pending == LOGS

    transport.up, transport.posts = True, 0
    steps = 0
    while not sender.step().idle:
        steps += 1
    assert transport.posts == steps == LOGS // SETTINGS.max_batch_records
    totals = spool.totals()
    assert (totals.delivered, totals.pending, totals.rejected, totals.dropped) == (LOGS, 0, 0, 0)
    (stored,) = rows(
        "SELECT count(*), count(DISTINCT n) AS different, bool_and(n = ordinal - 1) AS in_order FROM (SELECT"
        " (fields->>'n')::int n, row_number() OVER (ORDER BY factory_log_id) AS ordinal FROM factory_logs) AS logs"
    )
    assert stored == {"count": LOGS, "different": LOGS, "in_order": True}
    spool.file.close()
    link.close()

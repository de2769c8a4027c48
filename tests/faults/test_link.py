"""The link withholds only the responses that a test selects."""

import asyncio

import asyncpg
import pytest

from tests.faults.site import Site

pytestmark = pytest.mark.faults

LOCK = 77_001
HELD = f"SELECT true FROM pg_locks WHERE locktype = 'advisory' AND objid = {LOCK}"


async def connect(site: Site) -> asyncpg.Connection:
    url = site.cluster.url.replace(str(site.cluster.port), str(site.link.port))
    return await asyncpg.connect(url, timeout=60)


async def test_only_the_connection_that_carried_the_bytes_does_not_get_its_commit(
    site: Site, past_the_link: asyncpg.Connection
) -> None:
    concerned, other = await connect(site), await connect(site)
    await concerned.execute("BEGIN; SELECT 'of this one'; COMMIT")
    site.link.hold_responses(b"COMMIT\0", to=b"of this one")
    async with other.transaction():  # as background work does
        assert await other.fetchval("SELECT 1") == 1
    await concerned.execute("BEGIN")
    await concerned.execute(f"SELECT 'of this one', pg_advisory_xact_lock({LOCK})")
    commit = asyncio.create_task(concerned.execute("COMMIT"))
    async with asyncio.timeout(60):
        while await past_the_link.fetchval(HELD):
            await asyncio.sleep(0.01)
    async with other.transaction():
        assert await other.fetchval("SELECT 2") == 2
    assert not commit.done()
    site.link.pass_responses()
    assert await commit == "COMMIT"
    await concerned.close()
    await other.close()

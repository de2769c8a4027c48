"""The Citus cluster of FACTORY_LOGS_TEST_CITUS_URL, in place of the one server of the fault tests.

Its nodes must run on this machine. The tests pause the coordinator; tests/citus crashes worker nodes.
"""

import asyncio

from sqlalchemy import make_url

from tests.faults.postgres import RunningServer

_POSTMASTER = r"SELECT split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int"


class CitusCluster(RunningServer):
    """The methods of `Cluster` (tests/faults/postgres.py) that the tests need, for the coordinator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.port = make_url(url).port or 5432
        self.pid: int = asyncio.run(self._postmaster())

    async def _postmaster(self) -> int:
        async with self.connected() as connection:
            pid: int = await connection.fetchval(_POSTMASTER)
            return pid

"""The environment of the fault tests."""

import signal
from dataclasses import dataclass

import httpx

from tests.faults import processes
from tests.faults.citus import CitusCluster
from tests.faults.clock import WallClock
from tests.faults.disk import SmallDisk
from tests.faults.link import Link
from tests.faults.postgres import Cluster
from tests.faults.service import Service
from tests.faults.verdict import Verdict, judge
from tests.faults.writers import Ledger, Writers


@dataclass(frozen=True, slots=True)
class Site:
    """A service with two workers, its PostgreSQL, and the link between them."""

    cluster: Cluster | CitusCluster
    link: Link
    service: Service
    token: str
    disk: SmallDisk | None
    """PostgreSQL's; None where this system lets us mount none."""
    clock: WallClock | None
    """The service's and PostgreSQL's; None where this system has no C compiler."""

    def client(self) -> httpx.Client:
        return httpx.Client(
            base_url=self.service.url, headers={"Authorization": f"Token token={self.token}"}, timeout=60
        )

    def writers(self, name: str, ledger: Ledger) -> Writers:
        return Writers(self.service.url, self.token, name, ledger)

    def mend(self) -> None:
        """Undo the effects of an interrupted fault."""
        self.link.pass_responses()
        processes.send([*self.cluster.processes(), *self.service.processes()], signal.SIGCONT)
        if self.clock is not None:
            self.clock.jump_to(0)
        if self.disk is not None:
            self.disk.free()
        if isinstance(self.cluster, Cluster) and self.cluster.pid is None:
            self.cluster.start()

    async def judge(self, ledger: Ledger) -> Verdict:
        async with self.cluster.connected() as connection:
            return await judge(connection, ledger.writes)

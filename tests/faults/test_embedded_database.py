"""`serve` restarts its embedded PostgreSQL, and a killed `serve` leaves nothing that blocks the next one."""

import asyncio
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx
import pytest

from factory_logs.embedded import os_user, server, sharing
from tests.faults import processes
from tests.faults.disk import SmallDisk, small_disk
from tests.faults.service import Service
from tests.faults.verdict import judge
from tests.faults.writers import Ledger, Writers

pytestmark = pytest.mark.faults

DISK_MIB = 160


class EmbeddedSite:
    """Start a service on an embedded PostgreSQL."""

    def __init__(self, folder: Path, output: Path) -> None:
        self.folder = folder
        settings = {"FACTORY_LOGS_DISK_RESERVE_BYTES": "0", "FACTORY_LOGS_ACCESS_LOG": "0"}
        self.service = Service({"FACTORY_LOGS_DATA_DIR": str(folder)} | settings, output)
        self.service.start()
        self.service.wait_until_ready()
        (self.token,) = re.findall("^[A-Za-z0-9]{64}$", output.read_text(), re.MULTILINE)

    @property
    def url(self) -> str:
        return sharing.prepare(self.folder).url

    def writers(self, name: str, ledger: Ledger) -> Writers:
        return Writers(self.service.url, self.token, name, ledger)

    def postgres(self) -> list[int]:
        """Return the processes of the server; none if it does not run."""
        cluster = self.folder / os_user.CLUSTER_FOLDER
        pid = server.postmaster_pid(cluster)
        return [pid, *processes.children(pid)] if pid and server.is_server(pid, cluster) else []

    async def _connect(self) -> asyncpg.Connection:
        """Connect as soon as PostgreSQL runs: a backend that a kill missed may acknowledge a write before the new one
        starts."""
        deadline = time.monotonic() + 60
        while True:
            try:
                return await asyncpg.connect(self.url)
            except (ConnectionError, FileNotFoundError, asyncpg.CannotConnectNowError):
                assert time.monotonic() < deadline, "PostgreSQL is not started again"
                await asyncio.sleep(0.1)

    async def check(self, ledger: Ledger) -> None:
        assert ledger.surprises == []
        connection = await self._connect()
        try:
            (await judge(connection, ledger.writes)).check()
        finally:
            await connection.close()


@pytest.fixture(scope="module")
def disk(shared_short_tmp: Path) -> Iterator[SmallDisk | None]:
    with small_disk(shared_short_tmp / "disk", DISK_MIB) as disk:
        yield disk


@pytest.fixture(scope="module")
def site(
    disk: SmallDisk | None, shared_short_tmp: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedSite]:
    folder = disk.folder if disk is not None else shared_short_tmp
    site = EmbeddedSite(folder / "embedded", tmp_path_factory.mktemp("embedded") / "service.log")
    yield site
    site.service.stop()


async def test_a_killed_postgresql_is_started_again(site: EmbeddedSite) -> None:
    ledger = Ledger()
    with site.writers("killed", ledger) as writers:
        writers.wait_for_acknowledgement()
        processes.send(site.postgres(), signal.SIGKILL)
        writers.wait_for_acknowledgement()
    await site.check(ledger)


async def test_a_full_disk_gets_a_503_and_the_service_recovers_when_space_is_free(
    site: EmbeddedSite, disk: SmallDisk | None
) -> None:
    if disk is None:
        pytest.skip("a full disk takes a small one, and this system lets us mount none")
    ledger = Ledger()
    with site.writers("full", ledger) as writers:
        writers.wait_for_acknowledgement()
        disk.fill()
        # The next segment of the log does not fit, so PostgreSQL stops and cannot start again.
        with suppress(asyncpg.PostgresError, OSError):
            connection = await asyncpg.connect(site.url)
            try:
                await connection.execute("SELECT pg_switch_wal()")
            finally:
                connection.terminate()
        deadline = time.monotonic() + 60
        while site.postgres():
            assert time.monotonic() < deadline, "PostgreSQL runs on a full disk"
            time.sleep(0.1)
        with httpx.Client(timeout=60) as client:
            assert client.get(f"{site.service.url}/readyz").status_code == 503
        time.sleep(2)  # it cannot start
        disk.free()
        writers.wait_for_acknowledgement()
    await site.check(ledger)


async def test_the_workers_of_a_killed_supervisor_end_and_another_service_can_start(site: EmbeddedSite) -> None:
    ledger = Ledger()
    with site.writers("orphans", ledger) as writers:
        writers.wait_for_acknowledgement()
        workers = site.service.workers()
        site.service.kill_supervisor()
        deadline = time.monotonic() + 60
        while any(processes.is_alive(pid) for pid in workers):
            assert time.monotonic() < deadline, "a worker goes on without its supervisor"
            time.sleep(0.05)
        assert site.postgres(), "the database is stopped by the last to leave, and nobody left"
        site.service.start()
        writers.wait_for_acknowledgement()
    await site.check(ledger)

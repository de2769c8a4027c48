"""One PostgreSQL and one service with two workers for all fault tests; each test restores both."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import asyncpg
import pytest

from factory_logs.db.migrations import upgrade
from tests import forked
from tests.conftest import CITUS_URL
from tests.faults.citus import CitusCluster
from tests.faults.clock import wall_clock
from tests.faults.disk import small_disk
from tests.faults.link import Link
from tests.faults.postgres import Cluster
from tests.faults.service import Service
from tests.faults.site import Site

DISK_MIB = 1024
OWN_SERVER = pytest.mark.skipif(CITUS_URL is not None, reason="it stops a server and changes its disk or its clock")


@pytest.fixture(scope="session")
def _site(
    request: pytest.FixtureRequest, shared_short_tmp: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    with small_disk(shared_short_tmp / "faults", DISK_MIB) as disk, wall_clock(shared_short_tmp / "clock") as clock:
        environment = {} if clock is None else clock.environment
        cluster: Cluster | CitusCluster
        if CITUS_URL is None:
            cluster = Cluster(shared_short_tmp / "faults" / "postgres", environment)
            cluster.create()
            cluster.start()
            asyncio.run(upgrade(cluster.url))
        else:
            cluster = CitusCluster(request.getfixturevalue("migrated_url"))
        with Link(cluster.port) as link:
            url = cluster.url.replace(str(cluster.port), str(link.port))
            launcher = forked.Launcher(environment)
            service = Service(
                {
                    "FACTORY_LOGS_DATABASE_URL": url,
                    "FACTORY_LOGS_ACCESS_LOG": "0",
                    "FACTORY_LOGS_KEEP_ALIVE_SECONDS": "60",  # a test opens many connections before it uses them
                    "FACTORY_LOGS_WORKER_HEALTH_SECONDS": "5",  # a frozen worker is replaced or continues
                    **environment,
                },
                tmp_path_factory.mktemp("faults") / "service.log",
                launcher=launcher,
            )
            service.create_user("jig", "SYSTEM")
            service.start()
            service.wait_until_ready()
            token = service.run("tokens", "issue", "jig", "--expires-in", "never")
            yield Site(cluster, link, service, token, disk, clock)
            service.stop()
            launcher.close()
        if isinstance(cluster, Cluster):
            cluster.remove()


@pytest.fixture
def site(_site: Site) -> Iterator[Site]:
    """Ready before each test, and repaired after it, so that a failed test does not make the next one fail."""
    _site.service.wait_until_ready()
    yield _site
    _site.mend()


@pytest.fixture
async def past_the_link(site: Site) -> AsyncIterator[asyncpg.Connection]:
    """Straight to PostgreSQL."""
    connection = await site.cluster.connect()
    yield connection
    await connection.close()

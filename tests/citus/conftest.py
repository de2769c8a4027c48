"""The Citus cluster of FACTORY_LOGS_TEST_CITUS_URL; without it, the tests of this folder are skipped."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from factory_logs.db.engine import Database
from tests.api.conftest import password_hash, tokens
from tests.citus.crashes import recovered
from tests.conftest import CITUS_URL

__all__ = ["password_hash", "tokens"]
RECOVERY_SECONDS = 300
"""The maximum time of a recovery. It takes some seconds."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CITUS_URL is not None:
        return
    skipped = pytest.mark.skip(reason="FACTORY_LOGS_TEST_CITUS_URL names no Citus cluster (CONTRIBUTING.md)")
    for item in items:
        if item.nodeid.startswith("tests/citus/"):
            item.add_marker(skipped)


@pytest_asyncio.fixture
async def cluster(database: Database) -> AsyncIterator[Database]:
    """Yield the database of the cluster, with empty tables. Afterwards, wait until crashed nodes are back: the next
    test empties the tables first."""
    yield database
    async with asyncio.timeout(RECOVERY_SECONDS):
        await (await recovered(database)).close()


@pytest.fixture
def seconds(pytestconfig: pytest.Config) -> float:
    """Return how long worker nodes crash; 0 for the default."""
    return 60.0 * float(pytestconfig.getoption("citus_minutes"))

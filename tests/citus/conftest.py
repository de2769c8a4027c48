"""The Citus cluster of FACTORY_LOGS_TEST_CITUS_URL; without it, the tests of this folder are skipped."""

import pytest
import pytest_asyncio

from factory_logs.db.engine import Database
from factory_logs.settings import Settings
from tests.api.conftest import password_hash, tokens
from tests.conftest import CITUS_URL

__all__ = ["password_hash", "tokens"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if CITUS_URL is not None:
        return
    skipped = pytest.mark.skip(reason="FACTORY_LOGS_TEST_CITUS_URL names no Citus cluster (CONTRIBUTING.md)")
    for item in items:
        if item.nodeid.startswith("tests/citus/"):
            item.add_marker(skipped)


@pytest_asyncio.fixture
async def cluster(database: Database, migrated_url: str, settings: Settings) -> Database:
    """Return the database of the cluster, with empty tables."""
    return database


@pytest.fixture
def seconds(pytestconfig: pytest.Config) -> float:
    """Return how long worker nodes crash; 0 for the default."""
    return 60.0 * float(pytestconfig.getoption("citus_minutes"))

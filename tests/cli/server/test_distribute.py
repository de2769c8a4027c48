"""`factory-logs distribute` on a PostgreSQL without Citus; tests/citus runs it on a cluster."""

import pytest

from tests.cli.conftest import Run
from tests.conftest import CITUS_URL


@pytest.mark.skipif(CITUS_URL is not None, reason="needs a PostgreSQL without Citus")
def test_without_citus_it_says_what_is_missing_and_changes_nothing(run: Run) -> None:
    refused = run("distribute")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: this PostgreSQL has no Citus: run CREATE EXTENSION citus on each node")


def test_less_than_two_shards_are_refused(run: Run) -> None:
    assert run("distribute", "--shards", "1").exit_code == 2

"""`factory-logs retention` takes old logs away, when told twice, and nothing else."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Query, Run
from tests.cli.test_transfer import LOG, lines

AGES = (1, 399, 401, 800)


@pytest.fixture
def stored(run: Run, tmp_path: Path) -> list[str]:
    """Logs of several ages in days, of two apps each; their timestamps."""
    moments = [(datetime.now(UTC) - timedelta(days=age)).strftime("%Y-%m-%dT%H:%M:%SZ") for age in AGES]
    logs = [LOG | {"app_name": app, "timestamp": moment} for app in ("koala", "tiger") for moment in moments]
    assert run("import", "-", "--format", "ndjson", stdin=lines(*logs)).exit_code == 0
    return [moment[:10] for moment in moments]


def ages(query: Query) -> list[int]:
    return [row["id"] for row in query("select factory_log_id as id from factory_logs order by 1")]


def test_without_delete_it_shows_what_would_go(run: Run, query: Query, stored: list[str]) -> None:
    shown = run("retention", "--older-than", "400d")
    assert shown.exit_code == 0, shown.stderr
    *apps, total = shown.stdout.splitlines()
    assert apps == [f"{app}: 2 logs from {stored[3]} to {stored[2]}" for app in ("koala", "tiger")]
    assert total.startswith("4 logs from before ")
    assert total.endswith(" would be deleted")
    assert shown.stderr == "Nothing was deleted; --delete does it.\n"
    assert len(ages(query)) == 8


@pytest.mark.parametrize("batch", [1, 3, 4, 5000])
def test_with_delete_the_old_logs_go_and_the_others_stay(
    run: Run, query: Query, stored: list[str], monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr("factory_logs.cli.retention.BATCH_LOGS", batch)
    deleted = run("retention", "--older-than", "400d", "--delete")
    assert (deleted.exit_code, deleted.stderr) == (0, "")
    assert deleted.stdout.splitlines()[-1].startswith("Deleted 4 logs from before ")
    assert ages(query) == [1, 2, 5, 6]
    assert query("select removed from retention_runs") == [{"removed": 4}]
    again = run("retention", "--older-than", "58w", "--delete")
    assert again.stdout.startswith("Deleted 0 logs from before ")
    assert len(query("select from retention_runs")) == 1


@pytest.mark.parametrize("age", ["400", "0d", "-1d", "9999999w", "never"])
def test_an_age_that_is_none_deletes_nothing(run: Run, query: Query, stored: list[str], age: str) -> None:
    refused = run("retention", f"--older-than={age}", "--delete")
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
    assert len(ages(query)) == 8

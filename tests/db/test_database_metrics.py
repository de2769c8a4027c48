"""The gauges of PostgreSQL and of the apps' newest logs."""

import asyncio
import math
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client.registry import REGISTRY
from sqlalchemy import text
from structlog.testing import capture_logs

from factory_logs.db.database_metrics import DatabaseMetrics
from factory_logs.db.engine import Database
from factory_logs.settings import Settings

NOW = datetime.now(UTC).replace(microsecond=0)


def gauge(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"factory_logs_{name}", labels)


async def store(database: Database, app_name: str, *ages: timedelta) -> None:
    async with database.begin() as connection:
        for age in ages:
            await connection.execute(
                text("INSERT INTO factory_logs (app_name, timestamp, created_by) VALUES (:app_name, :time, 'test')"),
                {"app_name": app_name, "time": (NOW - age).replace(tzinfo=None)},
            )


def database_metrics(database: Database, most_apps: int = 10) -> DatabaseMetrics:
    return DatabaseMetrics(database, Settings().model_copy(update={"max_metrics_apps": most_apps}))


async def test_the_gauges_show_the_values_of_postgresql(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text("SELECT pg_sleep(0.5)"))
        await database_metrics(database).measure()
        expected = await connection.scalar(text("SELECT pg_database_size(current_database())"))
        most = await connection.scalar(text("SELECT current_setting('max_connections')::int"))
    assert gauge("database_bytes") == pytest.approx(expected, rel=0.5)
    assert gauge("database_max_connections") == most
    connections, oldest = gauge("database_connections"), gauge("database_oldest_transaction_seconds")
    assert connections is not None
    assert oldest is not None
    assert connections >= 2
    assert oldest >= 0.5
    assert gauge("database_replication_lag_bytes") == 0


async def test_the_newest_log_of_each_app_is_measured_except_future_ones(database: Database) -> None:
    await store(database, "koala", timedelta(hours=3), timedelta(hours=2), timedelta(days=-365))
    await store(database, "tiger", timedelta(days=9))
    await store(database, "only future", timedelta(days=-1))
    await database_metrics(database).measure()
    last = "last_log_timestamp_seconds"
    assert gauge(last, app_name="koala") == (NOW - timedelta(hours=2)).timestamp()
    assert gauge(last, app_name="tiger") == (NOW - timedelta(days=9)).timestamp()
    assert math.isnan(gauge(last, app_name="only future") or 0)


async def test_a_setting_limits_the_apps(database: Database) -> None:
    for number in range(4):
        await store(database, f"bounded {number}", timedelta(hours=1))
    await database_metrics(database, most_apps=3).measure()
    assert [gauge("last_log_timestamp_seconds", app_name=f"bounded {number}") is None for number in range(4)] == [
        False, False, False, True
    ]  # fmt: skip
    await store(database, "apple", timedelta(hours=1))
    await database_metrics(database, most_apps=0).measure()
    assert gauge("last_log_timestamp_seconds", app_name="apple") is None


async def test_an_app_whose_logs_are_deleted_has_no_newest_log(database: Database) -> None:
    await store(database, "deleted", timedelta(hours=1))
    measuring = database_metrics(database)
    await measuring.measure()
    async with database.begin() as connection:
        await connection.execute(text("DELETE FROM factory_logs"))
    await measuring.measure()
    assert math.isnan(gauge("last_log_timestamp_seconds", app_name="deleted") or 0)


async def test_before_the_first_migration_a_warning_is_logged_and_measuring_continues(empty: Database) -> None:
    measuring = DatabaseMetrics(empty, Settings().model_copy(update={"database_metrics_seconds": 0.1}))
    with capture_logs() as lines:
        running = asyncio.create_task(measuring.run())
        async with asyncio.timeout(120):
            while len(lines) < 2:
                await asyncio.sleep(0.1)
        assert not running.done()
        running.cancel()
    assert {line["event"] for line in lines} == {"the metrics of PostgreSQL cannot be read"}
    assert "factory_logs" in lines[0]["reason"]

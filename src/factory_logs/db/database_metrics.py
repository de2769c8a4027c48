"""Measure PostgreSQL and the apps for /metrics, in the background instead of during each scrape.

Several Prometheus servers may scrape a worker, and a scrape must get a response even if PostgreSQL does not respond.
"""

import asyncio
import math

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.citus import runs_on_cluster
from factory_logs.db.engine import Database
from factory_logs.errors import FactoryLogsError
from factory_logs.metrics import (
    DATABASE_BYTES,
    DATABASE_CONNECTIONS,
    DATABASE_MAX_CONNECTIONS,
    DEAD_ROWS,
    LAST_LOG_SECONDS,
    OLDEST_TRANSACTION_SECONDS,
    REPLICATION_LAG_BYTES,
)
from factory_logs.settings import Settings

# PostgreSQL shows statistics of other roles' transactions and standbys only to members of pg_read_all_stats.
_SERVER = text("""
SELECT
    pg_database_size(current_database()) AS bytes,
    (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') AS connections,
    current_setting('max_connections')::int AS max_connections,
    (SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::float8 FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()) AS oldest_transaction_seconds,
    (SELECT coalesce(max(n_dead_tup), 0) FROM pg_stat_user_tables WHERE relid = 'factory_logs'::regclass) AS dead_rows,
    CASE WHEN pg_is_in_recovery() THEN 0 ELSE
        (SELECT coalesce(max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)), 0)::float8 FROM pg_stat_replication)
    END AS replication_lag_bytes
""")
# Two index look-ups for each app, one of them for its newest log. The cost does not depend on the number of logs.
_LAST_LOGS = text("""
WITH RECURSIVE apps (app_name, number) AS (
    (SELECT app_name, 1 FROM factory_logs ORDER BY app_name LIMIT 1)
    UNION ALL
    SELECT (SELECT logs.app_name FROM factory_logs AS logs WHERE logs.app_name > apps.app_name
        ORDER BY logs.app_name LIMIT 1), number + 1
    FROM apps WHERE app_name IS NOT NULL AND number < :most
)
SELECT app_name, extract(epoch FROM (
    SELECT timestamp FROM factory_logs AS logs
    WHERE logs.app_name = apps.app_name AND timestamp <= now() AT TIME ZONE 'UTC' ORDER BY timestamp DESC LIMIT 1
))::float8 AS seconds
FROM apps WHERE app_name IS NOT NULL
""")

# The same for one app at a time, because Citus does not support recursive queries.
_NEXT_APP = text("SELECT app_name FROM factory_logs WHERE app_name > :app_name ORDER BY app_name LIMIT 1")
_LAST_LOG = text("""
SELECT extract(epoch FROM timestamp)::float8 FROM factory_logs
WHERE app_name = :app_name AND timestamp <= now() AT TIME ZONE 'UTC' ORDER BY timestamp DESC LIMIT 1
""")

_log = structlog.get_logger(__name__)


class DatabaseMetrics:
    """Sets the gauges of PostgreSQL and of the apps. `run` must run in the background."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._seconds = settings.database_metrics_seconds
        self._most_apps = settings.max_metrics_apps
        self._apps: set[str] = set()
        self._has_warned = False

    async def run(self) -> None:
        """Measure every `database_metrics_seconds` until cancelled. After an error the gauges keep their values."""
        while True:
            try:
                await self.measure()
            except (FactoryLogsError, SQLAlchemyError) as error:  # for example before the first migration
                _log.warning("the metrics of PostgreSQL cannot be read", reason=str(error).partition("\n")[0])
            await asyncio.sleep(self._seconds)

    async def measure(self) -> None:
        """Set the gauges. Raises DatabaseUnavailableError."""
        async with self._database.connect_reader() as connection:
            server = (await connection.execute(_SERVER)).one()
            DATABASE_BYTES.set(server.bytes)
            DATABASE_CONNECTIONS.set(server.connections)
            DATABASE_MAX_CONNECTIONS.set(server.max_connections)
            OLDEST_TRANSACTION_SECONDS.set(server.oldest_transaction_seconds)
            DEAD_ROWS.set(server.dead_rows)
            REPLICATION_LAG_BYTES.set(server.replication_lag_bytes)
            if self._most_apps:
                self._set_last_logs(await _last_logs(connection, self._most_apps + 1))

    def _set_last_logs(self, found: dict[str, float | None]) -> None:
        if len(found) > self._most_apps and not self._has_warned:
            _log.warning(
                "some apps are not in /metrics: there are more than FACTORY_LOGS_MAX_METRICS_APPS", apps=self._most_apps
            )
            self._has_warned = True
        shown = dict(sorted(found.items())[: self._most_apps])
        for app_name, seconds in shown.items():
            LAST_LOG_SECONDS.labels(app_name).set(math.nan if seconds is None else seconds)
        # prometheus_client cannot delete a label's value that several workers share.
        for app_name in self._apps - shown.keys():
            LAST_LOG_SECONDS.labels(app_name).set(math.nan)
        self._apps = set(shown)


async def _last_logs(connection: AsyncConnection, most: int) -> dict[str, float | None]:
    """Return the time of the newest log of each app, up to `most` apps, in seconds since the epoch."""
    if not await runs_on_cluster(connection):
        rows = (await connection.execute(_LAST_LOGS, {"most": most})).all()
        return {row.app_name: row.seconds for row in rows}
    found: dict[str, float | None] = {}
    app_name = ""
    while len(found) < most and (app_name := await connection.scalar(_NEXT_APP, {"app_name": app_name})) is not None:
        found[app_name] = await connection.scalar(_LAST_LOG, {"app_name": app_name})
    return found

"""The services of a running worker. The app's lifespan creates them, and the routes use them.

The routes reach the database only through these services: an import contract in pyproject.toml checks this.
"""

import asyncio
from dataclasses import dataclass

from factory_logs.db import migrations
from factory_logs.db.engine import Database
from factory_logs.db.records import RecordRepository
from factory_logs.db.users import UserRepository
from factory_logs.ingest.batch_collector import BatchLimits
from factory_logs.ingest.batch_writer import BatchWriter
from factory_logs.ingest.body_spool import BodyBudget
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.ingest.group_commit import GroupCommit
from factory_logs.ingest.single_records import RepairWriter, SingleLogs
from factory_logs.querier.aggregates import Aggregates
from factory_logs.querier.by_id import LogsById
from factory_logs.querier.counts import LogCounts
from factory_logs.querier.exports import Exports
from factory_logs.querier.influxql.statements import InfluxqlQueries
from factory_logs.querier.pages import Pages
from factory_logs.querier.result_cache import ResultCache
from factory_logs.querier.sums import Sums
from factory_logs.querier.tail import LogTail
from factory_logs.query import FACTORY_LOGS, QueryLimits, Resource
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.security.authenticator import Authenticator
from factory_logs.security.login import LoginService
from factory_logs.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """Contains the services of a worker, for its routes."""

    settings: Settings
    database: Database
    authenticator: Authenticator
    login: LoginService
    users: UserRepository
    group_commit: GroupCommit
    single_logs: SingleLogs
    batches: BatchWriter
    bodies: BodyBudget
    limits: RecordLimits
    """The limits of one record."""
    batch_limits: BatchLimits
    """The limits of a body with many records."""
    query_limits: QueryLimits
    """The limits of one `q`."""
    logs: RecordRepository
    repairs: RecordRepository
    repair_writer: RepairWriter
    logs_by_id: LogsById
    counts: LogCounts
    pages: Pages
    exports: Exports
    aggregates: Aggregates
    known: ResultCache
    sums: Sums
    influxql: InfluxqlQueries
    tail: LogTail
    disk: DiskReserve
    stopping: asyncio.Event
    """Set when the worker begins to stop."""

    def records(self, resource: Resource) -> RecordRepository:
        """Return the repository of a resource."""
        return self.logs if resource is FACTORY_LOGS else self.repairs

    async def migrations(self) -> tuple[str | None, str]:
        """Return the migration revision of the database, and the revision that this program needs. Raises
        DatabaseUnavailableError."""
        return await migrations.current(self.database), migrations.head()

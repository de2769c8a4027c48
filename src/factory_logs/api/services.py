"""What the routers are given: the parts of one running worker, put together by the app's lifespan."""

import asyncio
from dataclasses import dataclass

from factory_logs.db.engine import Database
from factory_logs.ingest.batch import BatchWriter
from factory_logs.ingest.body_budget import BodyBudget
from factory_logs.ingest.group_commit import GroupCommit
from factory_logs.ingest.records import Limits
from factory_logs.reading.by_id import LogsById
from factory_logs.reading.counts import LogCounts
from factory_logs.reading.exports import Exports
from factory_logs.reading.pages import Pages
from factory_logs.reading.tail import LogTail
from factory_logs.security.authenticator import Authenticator
from factory_logs.security.login import LoginService
from factory_logs.settings import Settings


@dataclass(frozen=True, slots=True)
class Services:
    """One worker's parts."""

    settings: Settings
    database: Database
    authenticator: Authenticator
    login: LoginService
    group_commit: GroupCommit
    batches: BatchWriter
    bodies: BodyBudget
    limits: Limits
    """What one record may hold."""
    logs_by_id: LogsById
    counts: LogCounts
    pages: Pages
    exports: Exports
    tail: LogTail
    stopping: asyncio.Event
    """Set when the worker is asked to stop."""

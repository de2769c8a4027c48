"""Apply the retention policies once a day while the service runs (docs/how-to/operating.md#retention-each-day).

Each worker checks once a minute whether a policy is due. The worker that gets the advisory lock runs the policy. The
database stores the scheduled time of each policy's last run. So no run is repeated after a restart, and a missed run is
done later.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
import structlog

from factory_logs import metrics
from factory_logs.db.engine import Database
from factory_logs.db.errors import translate_errors
from factory_logs.db.retention import PolicyState, note_policy_done, note_policy_tried, policy_states
from factory_logs.errors import BadRequestError, FactoryLogsError
from factory_logs.query import QueryLimits
from factory_logs.retention.errors import BusyError
from factory_logs.retention.policies import Policy, read_policies
from factory_logs.retention.removal import alone, remove
from factory_logs.settings import Settings

CHECK_SECONDS = 60.0
STATEMENT_SECONDS = 3600.0
"""The statement timeout. It is long, because a statement may read the whole table, but a lost connection must not stop
retention for days."""
RETRY_AFTER = timedelta(minutes=10)
"""The time from the beginning of a failed or stopped run to the next attempt."""
LARGEST_CLOCK_DIFFERENCE = timedelta(days=1)
"""A run that was stored for a later time than this from now was made by a clock that was wrong."""

_log = structlog.get_logger(__name__)


def last_hour(now: datetime, at: str, zone: ZoneInfo) -> datetime:
    """Return the last moment before `now` at which clocks in the zone showed `at` (HH:MM), in UTC without zone.

    If a change of the clock skips or repeats this time, the offset from before the change applies.
    """
    hour, minute = map(int, at.split(":"))
    today = now.astimezone(zone).date()
    days = (today + timedelta(days=more) for more in (1, 0, -1))
    moments = (datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone).astimezone(UTC) for day in days)
    return next(moment for moment in moments if moment <= now).replace(tzinfo=None)


class RetentionSchedule:
    """Runs the retention policies that are due, in a worker. `run` must run in the background."""

    def __init__(self, settings: Settings, file: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        assert settings.database_url is not None  # noqa: S101 - create_app has checked it
        patient = settings.model_copy(update={"statement_timeout_seconds": STATEMENT_SECONDS})
        self._database = Database(settings.database_url.get_secret_value(), patient)
        self._file = file
        self._limits = QueryLimits.from_settings(settings)
        self._at, self._zone = settings.retention_time, ZoneInfo(settings.retention_tz)
        self._now = now
        self._states: Mapping[str, PolicyState] = {}
        self._reported: str | None = None

    async def run(self) -> None:
        """Check every minute until cancelled. A cancelled run continues after the next start."""
        try:
            while True:
                try:
                    await self.check()
                except (FactoryLogsError, asyncpg.PostgresError) as error:  # for example before the first migration
                    _log.warning("retention waits for the database", reason=str(error))
                await asyncio.sleep(CHECK_SECONDS)
        finally:
            await self._database.dispose()

    async def check(self) -> None:
        """Run the policies that are due, unless another worker runs them. Raises DatabaseUnavailableError."""
        policies = self._policies()
        names = [policy.name for policy in policies]
        if not policies:
            return
        hour = last_hour(self._now(), self._at, self._zone)
        if self._states.keys() != set(names) or not all(map(partial(self._is_done, hour), names)):
            connection = await self._database.connect_raw()
            try:
                await self._load_states(connection, names, hour)
            finally:
                connection.terminate()
        if any(self._is_due(name, hour) for name in names):
            with suppress(BusyError):
                async with alone(self._database) as connection:
                    await self._run_due(connection, policies, hour)

    def _policies(self) -> tuple[Policy, ...]:
        """Return the policies in the file, or no policies if the file is not valid. The file is read each time, so a
        change needs no restart."""
        try:
            policies = read_policies(self._file, self._limits)
        except BadRequestError as error:
            reason = "; ".join([error.message, *map(str, error.errors)])
            if reason != self._reported:
                _log.error("the retention policies are not valid, so no log is removed", reason=reason)
            self._reported = reason
            return ()
        self._reported = None
        return policies

    async def _load_states(self, connection: asyncpg.Connection, names: Sequence[str], hour: datetime) -> None:
        """Load the states of the policies in the file, and forget the states of policies that are no longer in the
        file."""
        with translate_errors():
            self._note(await policy_states(connection, names, hour, forgotten=[*self._states.keys() - set(names)]))

    def _note(self, states: Mapping[str, PolicyState]) -> None:
        for name, state in states.items():
            metrics.RETENTION_DONE.labels(name).set(state.done_for.replace(tzinfo=UTC).timestamp())
        for name in self._states.keys() - states.keys():  # prometheus_client cannot delete the label
            metrics.RETENTION_DONE.labels(name).set(float("nan"))
        self._states = states

    def _is_due(self, name: str, hour: datetime) -> bool:
        tried_at, now = self._states[name].tried_at, self._utc_now()
        is_resting = tried_at is not None and tried_at <= now < tried_at + RETRY_AFTER
        return not self._is_done(hour, name) and not is_resting

    def _is_done(self, hour: datetime, name: str) -> bool:
        return hour <= self._states[name].done_for < self._utc_now() + LARGEST_CLOCK_DIFFERENCE

    def _utc_now(self) -> datetime:
        return self._now().astimezone(UTC).replace(tzinfo=None)

    async def _run_due(self, connection: asyncpg.Connection, policies: tuple[Policy, ...], hour: datetime) -> None:
        """Run the policies that are due, except those that were changed or removed in the file before their turn."""
        for policy in policies:
            current = self._policies()
            if policy not in current:
                continue
            # Another worker may have run the policy before this worker got the lock.
            await self._load_states(connection, [each.name for each in current], hour)
            if self._is_due(policy.name, hour):
                await self._run_policy(connection, policy, hour)
        if current := self._policies():  # if the file is not valid at the moment, no state is forgotten
            await self._load_states(connection, [each.name for each in current], hour)

    async def _run_policy(self, connection: asyncpg.Connection, policy: Policy, hour: datetime) -> None:
        now = self._now()
        with translate_errors():
            await note_policy_tried(connection, policy.name, now.astimezone(UTC).replace(tzinfo=None))
        started = time.monotonic()
        archives: list[str] = []
        try:
            logs = policy.expired(now, self._limits)
            removed = await remove(
                self._database, connection, logs, policy.archive, on_archived=lambda it: archives.append(str(it.folder))
            )
        except Exception as error:  # noqa: BLE001 - if one policy fails, the others still run
            metrics.RETENTION_RUNS.labels(policy.name, "failed").inc()
            _log.error("a retention policy failed", policy=policy.name, reason=str(error), archives=archives)
            return
        with translate_errors():
            await note_policy_done(connection, policy.name, hour)
        metrics.RETENTION_RUNS.labels(policy.name, "done").inc()
        metrics.RETENTION_REMOVED.labels(policy.name).inc(removed)
        seconds = round(time.monotonic() - started, 3)
        _log.info(
            "a retention policy ran", policy=policy.name, removed=removed, cutoff=str(logs.cutoff), archives=archives,
            seconds=seconds,
        )  # fmt: skip

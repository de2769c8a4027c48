"""Distribute `factory_logs` over the nodes of a Citus cluster, while logs are written (docs/how-to/scale-out.md).

The logs up to the watermark are copied to a new distributed table, range by range of their ids. Then a short lock stops
writers while the newest logs are copied and the new table gets the name of the old table. Each step checks which tables
and indexes exist, so an interrupted run can be continued.

The new table has its own sequence. Batches that wait for the table hold a lock on the old sequence, so waiting for that
lock would be a deadlock.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import asyncpg

from factory_logs.db.citus import SHARD_KEY, find_distributed, has_citus, wait_for_prepared_writers
from factory_logs.db.citus_results import FAILED_MEASUREMENTS
from factory_logs.db.connecting import APPLICATION_NAME
from factory_logs.db.count_cache import REMOVED_LOGS
from factory_logs.db.models import FactoryLog
from factory_logs.db.retention import try_lock_removals, unlock_removals
from factory_logs.db.watermark import LAST_DRAWN, Watermark

COPIED_IDS = 50_000
"""How many ids one transaction copies."""
REST_IDS = 20_000
"""If at most this many ids are left, the lock that stops writers is short."""
LOCK_SECONDS = 0.5
"""The time limit of one attempt to lock, during which new writers wait. It is less than `deadlock_timeout`, so that no
writer fails."""
PAUSE_SECONDS = 0.2
SHARDS_PER_NODE = 4

SHARD_KEY_COLUMN = "shard_key bigint NOT NULL"

_NEW, _OLD = "factory_logs_distributed", "factory_logs_undistributed"
_NEW_SEQUENCE, _SEQUENCE = "factory_logs_distributed_seq", "factory_logs_factory_log_id_seq"
_FOREIGN_KEY = "factory_logs_repair_id_fkey"
_COLUMNS = ", ".join(f'"{column.name}"' for column in FactoryLog.__table__.columns)
_INDEXES = """
SELECT c.relname AS name, split_part(pg_get_indexdef(i.indexrelid), ' USING ', 2) AS definition
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass($1) AND NOT i.indisprimary AND i.indisvalid
"""
_COPY = f"""
INSERT INTO {_NEW} ({_COLUMNS}, shard_key)
SELECT {_COLUMNS}, {SHARD_KEY} FROM factory_logs WHERE factory_log_id > $1
"""  # noqa: S608
_COMMENT = "SELECT obj_description(to_regclass($1), 'pg_class')"
_NAMES = r"""
SELECT quote_ident(c.relname) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = 'factory_logs'::regclass AND c.relname LIKE '%\_distributed%'
"""
_HAS_FOREIGN_KEY = (
    "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = 'factory_logs'::regclass AND conname = $1)"
)
_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()
"""
_RENAME = (
    f"""
    SELECT setval('{_NEW_SEQUENCE}', last) FROM pg_sequence_last_value('{_SEQUENCE}'::regclass) AS last
    WHERE last IS NOT NULL
    """,  # noqa: S608
    f"ALTER TABLE factory_logs RENAME TO {_OLD}",
    f"ALTER TABLE {_NEW} RENAME TO factory_logs",
    "COMMENT ON TABLE factory_logs IS NULL",
)
_HAS_PRIMARY_KEY = "SELECT EXISTS (SELECT FROM pg_index WHERE indrelid = to_regclass($1) AND indisprimary)"
_GRANTS = """
SELECT privilege_type AS privilege,
       CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS role
FROM pg_class, aclexplode(relacl) WHERE oid = to_regclass($1) AND grantee <> relowner
"""
_SCALE = """
SELECT (SELECT groupid = 0 FROM pg_dist_local_group) AS is_coordinator,
       count(*) FILTER (WHERE groupid = 0) AS coordinators,
       count(*) FILTER (WHERE shouldhaveshards AND isactive AND noderole = 'primary') AS workers
FROM pg_dist_node
"""
_PREPARABLE = """
SELECT min(CASE WHEN success THEN result::int END) FROM run_command_on_all_nodes('SHOW max_prepared_transactions')
"""


class CannotDistributeError(Exception):
    """The cluster is not ready. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The current step, with `copied` of `total` ids."""

    step: str
    copied: int
    total: int


@dataclass
class Distributor:
    """Runs `factory-logs distribute` once. `locked_seconds` is how long writers had to wait."""

    connection: asyncpg.Connection
    shards: int | None = None
    locked_seconds: float = 0.0
    must_restart: bool = False
    """Whether the service must be restarted, because it connects as another user, whose connections this user may not
    end."""
    _reached: int = 0
    """The id up to which the logs are copied."""

    async def run(self) -> AsyncGenerator[Progress]:
        """Distribute the logs, and yield the progress. Raises CannotDistributeError.

        Another run would copy the same logs, and logs that retention removes would stay as copies, so both must wait.
        """
        if not await try_lock_removals(self.connection):
            raise CannotDistributeError(
                "another process is distributing the logs or removing expired logs; run distribute again when it has "
                "ended"
            )
        try:
            async for progress in self._run():
                yield progress
        finally:
            await unlock_removals(self.connection)

    async def _run(self) -> AsyncIterator[Progress]:
        if not await has_citus(self.connection):
            raise CannotDistributeError(
                "this PostgreSQL has no Citus: run CREATE EXTENSION citus on each node, and citus_add_node on the "
                "coordinator, see docs/how-to/scale-out.md"
            )
        workers = await self._workers()
        if not await find_distributed(self.connection):
            await self._prepare(self.shards or SHARDS_PER_NODE * workers)
            while True:
                async for progress in self._copy():
                    yield progress
                if await self._swap():
                    break
        yield Progress("Cleaning up", 0, 0)
        await self._clean_up()

    async def _workers(self) -> int:
        """Return the number of worker nodes for shards. Raises CannotDistributeError if the cluster is not ready."""
        scale = await self.connection.fetchrow(_SCALE)
        if not scale["is_coordinator"]:
            raise CannotDistributeError("this is a worker node; name the coordinator in FACTORY_LOGS_DATABASE_URL")
        if not scale["coordinators"]:
            raise CannotDistributeError(
                "the cluster does not know its coordinator: run SELECT citus_set_coordinator_host('<its host name>')"
            )
        if not scale["workers"]:
            raise CannotDistributeError(
                "the cluster has no worker node: run SELECT citus_add_node('<its host name>', 5432)"
            )
        if not await self.connection.fetchval(_PREPARABLE):
            raise CannotDistributeError(
                "max_prepared_transactions is 0 on a node; set it to max_connections or more, and restart the node"
            )
        return int(scale["workers"])

    async def _prepare(self, shards: int) -> None:
        """Create the new table, unless an earlier run created it and its copies are still complete."""
        removed = await self.connection.fetchval(f"SELECT {REMOVED_LOGS}::text")
        if await self._exists(_NEW):
            if removed == await self.connection.fetchval(_COMMENT, _NEW):
                await wait_for_prepared_writers(self.connection)
                return
            await self.connection.execute(f"DROP TABLE {_NEW}")
        async with self.connection.transaction():
            await self.connection.execute(f"""
                CREATE TABLE {_NEW} (LIKE factory_logs INCLUDING DEFAULTS INCLUDING STORAGE INCLUDING COMPRESSION);
                ALTER TABLE {_NEW} ADD COLUMN {SHARD_KEY_COLUMN};
                CREATE SEQUENCE {_NEW_SEQUENCE} AS bigint OWNED BY {_NEW}.factory_log_id;
                COMMENT ON TABLE {_NEW} IS '{removed}';
            """)
            for old, new, kind in (("factory_logs", _NEW, "TABLE"), (_SEQUENCE, _NEW_SEQUENCE, "SEQUENCE")):
                for grant in await self.connection.fetch(_GRANTS, old):
                    await self.connection.execute(f"GRANT {grant['privilege']} ON {kind} {new} TO {grant['role']}")
            await self.connection.fetch(
                "SELECT create_distributed_table($1, 'shard_key', colocate_with => 'none', shard_count => $2)",
                _NEW,
                shards,
            )

    async def _copy(self) -> AsyncIterator[Progress]:
        """Copy the logs up to the watermark until few newer logs are left. Build the indexes after the first pass."""
        self._reached = await self.connection.fetchval(f"SELECT coalesce(max(factory_log_id), 0) FROM {_NEW}")  # noqa: S608
        left = REST_IDS + 1
        while left > REST_IDS:
            watermark = await self._watermark()
            while self._reached < watermark:
                yield Progress("Copying", self._reached, watermark)
                end = min(watermark, self._reached + COPIED_IDS)
                await self.connection.execute(f"{_COPY} AND factory_log_id <= $2", self._reached, end)
                self._reached = end
            yield Progress("Building indexes", self._reached, watermark)
            await self._build_indexes()
            left = await self.connection.fetchval(LAST_DRAWN) - self._reached
        yield Progress("Checking", self._reached, self._reached)
        await self._check()

    async def _watermark(self) -> int:
        """Return an id, at least the last drawn one, up to which no transaction can store logs any more."""
        watermark = Watermark(0.0)
        await watermark.observe(self.connection)
        while watermark.is_held_back:
            await asyncio.sleep(PAUSE_SECONDS)
            await watermark.observe(self.connection)
        return watermark.id

    async def _build_indexes(self) -> None:
        built = {row["name"] for row in await self.connection.fetch(_INDEXES, _NEW)}
        for name, definition in await self.connection.fetch(_INDEXES, "factory_logs"):
            if f"{name}_distributed" not in built:
                await self.connection.execute(f"CREATE INDEX {name}_distributed ON {_NEW} USING {definition}")
        if not await self.connection.fetchval(_HAS_PRIMARY_KEY, _NEW):
            await self.connection.execute(f"ALTER TABLE {_NEW} ADD PRIMARY KEY (factory_log_id, shard_key)")

    async def _check(self) -> None:
        """Raise CannotDistributeError if the copies are incomplete because logs were removed or restored meanwhile."""
        await wait_for_prepared_writers(self.connection)
        logs, copies = [
            await self.connection.fetchval(f"SELECT count(*) FROM {table} WHERE factory_log_id <= $1", self._reached)  # noqa: S608
            for table in ("factory_logs", _NEW)
        ]
        if logs != copies:
            await self.connection.execute(f"DROP TABLE {_NEW}")
            raise CannotDistributeError(
                f"there are {logs} logs and {copies} copies, as retention or an import of an archive has run "
                "meanwhile; run distribute again while they do not run"
            )

    async def _swap(self) -> bool:
        """Copy the newest logs and rename both tables while no log can be written.

        Return False, with nothing changed, if other transactions hold a lock for too long.
        """
        connection = self.connection
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout TO '{LOCK_SECONDS}s'")
                # This locks `repairs` first, because writers hold a lock on `repairs` while they wait for
                # logs.
                await connection.execute(f"ALTER TABLE factory_logs DROP CONSTRAINT IF EXISTS {_FOREIGN_KEY}")
            async with connection.transaction():
                await connection.execute(f"""
                    SET LOCAL lock_timeout TO '{LOCK_SECONDS}s';
                    SET LOCAL citus.multi_shard_modify_mode TO sequential;
                    LOCK TABLE retention_runs IN SHARE ROW EXCLUSIVE MODE;
                """)
                started = time.monotonic()
                await connection.execute("LOCK TABLE factory_logs IN ACCESS EXCLUSIVE MODE")
                await self._swap_locked()
            self.locked_seconds = time.monotonic() - started
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(PAUSE_SECONDS)
            return False
        # Other connections have prepared statements for the old table. End them; each client opens a new connection.
        try:
            await connection.execute(_END_OTHERS, APPLICATION_NAME)
        except asyncpg.InsufficientPrivilegeError:
            self.must_restart = True
        return True

    async def _swap_locked(self) -> None:
        removed = await self.connection.fetchval(f"SELECT {REMOVED_LOGS}::text")
        if removed != await self.connection.fetchval(_COMMENT, _NEW):
            raise CannotDistributeError("retention has removed logs meanwhile; run distribute again")
        await self.connection.execute(_COPY, self._reached)
        if not await self.connection.fetchval(
            "SELECT to_regclass('repairs') IN (SELECT logicalrelid FROM pg_dist_partition)"
        ):
            await self.connection.execute("SELECT create_reference_table('repairs')")
        for statement in _RENAME:  # one statement per call, because Citus sends the whole text of a call to every node
            await self.connection.execute(statement)

    async def _clean_up(self) -> None:
        """Drop the old table, give its names to the new sequence and indexes, add the foreign key to `repairs`, and
        create this version's SQL function."""
        await self.connection.execute(FAILED_MEASUREMENTS)
        async with self.connection.transaction():
            await self.connection.execute(f"DROP TABLE IF EXISTS {_OLD}")
            if await self._exists(_NEW_SEQUENCE):
                await self.connection.execute(f"ALTER SEQUENCE {_NEW_SEQUENCE} RENAME TO {_SEQUENCE}")
        for name in await self.connection.fetch(_NAMES):
            await self.connection.execute(f"ALTER INDEX {name[0]} RENAME TO {name[0].replace('_distributed', '')}")
        if not await self.connection.fetchval(_HAS_FOREIGN_KEY, _FOREIGN_KEY):
            await self.connection.execute(f"""
                ALTER TABLE factory_logs ADD CONSTRAINT {_FOREIGN_KEY}
                    FOREIGN KEY (repair_id) REFERENCES repairs (repair_id) NOT VALID
            """)
        await self.connection.execute(f"ALTER TABLE factory_logs VALIDATE CONSTRAINT {_FOREIGN_KEY}")
        await self.connection.execute("ANALYZE factory_logs")

    async def _exists(self, table: str) -> bool:
        return await self.connection.fetchval("SELECT to_regclass($1) IS NOT NULL", table) is True

"""The SQL of counting logs, and the counts and sums that the database stores for other workers and after a restart.

A stored count is as durable as the logs that it counts, because it follows them in the write-ahead log. So it is also
correct after a crash, on a standby and in a restored backup: if the count is present, the logs are present.

On a Citus cluster the removal of logs becomes visible node by node. So the state is read after the logs. While
retention removes logs, stored counts are used, but no new counts are stored (db/retention.py).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Select,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.citus import is_distributed, runs_on_cluster
from factory_logs.db.engine import Database
from factory_logs.db.models import FactoryLog, KnownCount
from factory_logs.db.prepared_statements import Placeholder, PreparedStatement, compile_statement, derived
from factory_logs.db.watermark import LAST_VALUE

Conditions = Sequence[ColumnElement[bool]]

# Identifies one run of one server. A crash resets the statistics, even if the postmaster survives it. Null on a
# standby, which has no watermark, and on a cluster while retention removes logs.
_RUN = """
CASE WHEN NOT pg_is_in_recovery(){condition} THEN concat_ws(' ',
    pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time(),
    (SELECT oid FROM pg_database WHERE datname = current_database())
) END"""
REMOVING = "EXISTS (SELECT FROM retention_runs WHERE removed = 0)"
"""SQL that is true while a run on a cluster removes logs, or if such a run was interrupted. During that time the run
has a row with `removed` 0."""
TABLE_FILE = "coalesce(pg_relation_filenode('factory_logs'), 0)::bigint"
REMOVED_LOGS = "(SELECT coalesce(sum(removed), 0)::bigint FROM retention_runs)"
"""SQL for the file of the table, and for the number of logs that retention has removed. TRUNCATE, and any other
statement that rewrites the table, gives it a new file. While both are unchanged, no log up to the watermark has been
removed."""
_RUN_ON_SERVER = _RUN.format(condition="")
_RUN_ON_CLUSTER = _RUN.format(condition=f" AND NOT {REMOVING}")
_STATE: list[ColumnElement[Any]] = [
    literal_column(sql).label(name)
    for name, sql in (("run", _RUN_ON_SERVER), ("file", TABLE_FILE), ("removed", REMOVED_LOGS))
]
_STATE_AND_ID = {
    is_distributed: f"SELECT {run}, {TABLE_FILE}, {REMOVED_LOGS}, ({LAST_VALUE})"
    for is_distributed, run in ((False, _RUN_ON_SERVER), (True, _RUN_ON_CLUSTER))
}
_SNAPSHOT_STATE = {is_distributed: text(sql) for is_distributed, sql in _STATE_AND_ID.items()}
_LOGS = FactoryLog.__table__
_ID = _LOGS.c.factory_log_id


class TableState(NamedTuple):
    """The state of the table. A count of logs up to a watermark is valid while the state is the same.

    `run` identifies a run of the server, None on a standby; `file` identifies the table; `removed` is the number of
    logs that retention has removed so far.
    """

    run: str | None
    file: int
    removed: int

    def same_table(self, other: "TableState") -> bool:
        """Return whether both states are of the same table in the same run of a server. A watermark stays valid until
        then."""
        return (self.run, self.file) == (other.run, other.file) and self.run is not None


class Known(NamedTuple):
    """The number of logs up to the watermark `up_to` that match. It is valid for every snapshot with the same state.

    No matching log, stored now or later, has an id below `lowest`. `content` are sums over these logs, or None for a
    count. Sums `in_parts` are loaded in any state, and their content shows which parts are valid.
    """

    state: TableState
    up_to: int
    logs: int
    lowest: int
    content: bytes | None = None
    in_parts: bool = False


class Counted(NamedTuple):
    """The row of `counting`: the number of matching logs, the number of matching logs up to the watermark, and the
    lowest id."""

    state: TableState
    logs: int
    up_to_watermark: int
    lowest: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Counted":
        return cls(TableState(*row[:3]), *row[3:])


def counting(
    conditions: Conditions, watermark: int | Placeholder, known: int | Placeholder | None = None
) -> Select[Any]:
    """Return a statement with one row: the state of the table, and the columns of `counting_alone`."""
    # A separate subquery: reading the state is parallel restricted, and PostgreSQL would not count in parallel in the
    # same query.
    counted = counting_alone(conditions, watermark, known).subquery("counted")
    return select(*_STATE, *counted.columns)


def counting_alone(
    conditions: Conditions, watermark: int | Placeholder, known: int | Placeholder | None = None
) -> Select[Any]:
    """Return a statement with one row about the matching logs with ids above `known`: their number, the number of them
    up to `watermark`, and the lowest id."""
    is_below_watermark = _ID <= literal(watermark, BigInteger)  # noqa: SIM300 - SQL
    newer = () if known is None else (_ID > literal(known, BigInteger),)  # noqa: SIM300
    next_one = literal(derived(watermark, lambda number: number + 1), BigInteger)
    columns = (
        func.count().label("logs"),
        func.count().filter(is_below_watermark).label("up_to_watermark"),
        func.coalesce(func.min(_ID).filter(is_below_watermark), next_one).label("lowest"),
    )
    return select(*columns).select_from(_LOGS).where(*conditions, *newer)


def state_sql(is_distributed: bool) -> str:
    """Return a statement with one row, the state of the table."""
    run = _RUN_ON_CLUSTER if is_distributed else _RUN_ON_SERVER
    return f"SELECT {run}, {TABLE_FILE}, {REMOVED_LOGS}"


async def current_state(connection: asyncpg.Connection) -> TableState:
    """Return the state, outside any transaction."""
    return TableState(*await connection.fetchrow(state_sql(is_distributed(connection))))


async def current_state_and_id(connection: asyncpg.Connection) -> tuple[TableState, int | None]:
    """Return the state, and the id that was drawn last, outside any transaction."""
    *state, drawn = await connection.fetchrow(_STATE_AND_ID[is_distributed(connection)])
    return TableState(*state), drawn


async def snapshot_state(connection: AsyncConnection) -> tuple[TableState, int | None]:
    """Return the table's state in the transaction's snapshot, and an upper bound of the ids in it, or None if it is
    unknown.

    The sequence is read after the snapshot is taken, so all logs in the snapshot already have their ids.
    """
    statement = _SNAPSHOT_STATE[await runs_on_cluster(connection)]
    *state, drawn = (await connection.execute(statement)).one()
    return TableState(*state), drawn


async def count(connection: asyncpg.Connection, statement: PreparedStatement, values: Sequence[Any]) -> Counted:
    """Run `counting`, or on a cluster `counting_alone`, where the state is read after the logs."""
    ((*counted,),) = await connection.fetch(statement.sql, *statement.bind(values))  # fetchrow() has no parallel plans
    state = await current_state(connection) if is_distributed(connection) else ()
    return Counted.of((*state, *counted))


def matching(conditions: Conditions) -> Select[int]:
    """Return the statement that `digest` takes for a filter."""
    return select(func.count()).where(*conditions)


def digest(statement: PreparedStatement, values: Sequence[Any]) -> bytes:
    """Return the name under which counts of a filter are stored. It is derived from the SQL, so after a fix in the
    compiler no old count is found."""
    return hashlib.sha256(f"{statement.sql} {statement.bind(values)}".encode()).digest()


EVERYTHING = digest(compile_statement(matching(()), postgresql.asyncpg.dialect()), ())  # type: ignore[no-untyped-call]
"""The filter that matches all logs."""

_LOAD = {
    is_distributed: f"""
        SELECT state.*, up_to, logs, lowest, content, in_parts
        FROM known_counts, ({state_sql(is_distributed)}) AS state
        WHERE digest = $1 AND known_counts.file = {TABLE_FILE}
            AND (known_counts.removed = {REMOVED_LOGS} OR in_parts)
    """  # noqa: S608 - our own text
    for is_distributed in (False, True)
}
_FORGET = text("""
    DELETE FROM known_counts
    WHERE digest IN (
        SELECT digest FROM (
            SELECT digest, row_number() OVER newest AS rank, sum(octet_length(content)) OVER newest AS bytes
            FROM known_counts WINDOW newest AS (ORDER BY made_at DESC, digest)
        ) AS stored
        WHERE rank > :most OR bytes > :most_bytes
    )
""")


async def load(connection: AsyncConnection, name: bytes) -> Known | None:
    """Return the count that a worker has stored under this name, or None if it is not valid now."""
    raw: Any = (await connection.get_raw_connection()).driver_connection
    row = await raw.fetchrow(_LOAD[is_distributed(raw)], name)
    return None if row is None else Known(TableState(*row[:3]), *row[3:])


_SAVED = ("file", "removed", "up_to", "logs", "lowest", "content", "in_parts", "made_at")


async def save(database: Database, found: Mapping[bytes, Known], most: int, most_bytes: int) -> None:
    """Store these results. Delete the oldest ones, until at most `most` results with at most `most_bytes` of content
    remain.

    Raises DatabaseUnavailableError.
    """
    rows = [
        {
            "digest": name,
            "file": known.state.file,
            "removed": known.state.removed,
            "up_to": known.up_to,
            "logs": known.logs,
            "lowest": known.lowest,
            "content": known.content,
            "in_parts": known.in_parts,
        }
        for name, known in sorted(found.items())  # sorted, so that two workers cannot deadlock
    ]
    new = insert(KnownCount).values(rows)
    before, now = KnownCount.__table__.c, new.excluded
    statement = new.on_conflict_do_update(
        index_elements=[before.digest],
        set_={name: now[name] for name in _SAVED},
        where=(now.file != before.file)
        | (now.removed > before.removed)
        | ((now.removed == before.removed) & (now.up_to > before.up_to)),
    )
    async with database.begin() as connection:
        await connection.execute(statement)
        await connection.execute(_FORGET, {"most": most, "most_bytes": most_bytes})

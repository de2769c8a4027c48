"""The SQL of counting logs, and the counts that are kept in the database for other workers and after a restart.

A kept count is as durable as the logs that it counts: it is in the same write-ahead log, after them. So it is right
after a crash, on a standby and in a database restored from a backup: where it is, they are.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    LargeBinary,
    Select,
    bindparam,
    func,
    literal,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.engine import Database
from factory_logs.db.models import FactoryLog, KnownCount
from factory_logs.db.slots import Slot, derived

Conditions = Sequence[ColumnElement[bool]]

# One run of one server: the statistics are reset after a crash, which the postmaster may survive. A standby has none,
# as nothing can be found settled there.
_RUN = """
CASE WHEN NOT pg_is_in_recovery() THEN concat_ws(' ',
    pg_postmaster_start_time(), pg_stat_get_bgwriter_stat_reset_time(),
    (SELECT oid FROM pg_database WHERE datname = current_database())
) END"""
# TRUNCATE, and whatever else makes the table anew, gives it a new file.
_FILE = "coalesce(pg_relation_filenode('factory_logs'), 0)::bigint"
_REMOVED = "(SELECT coalesce(sum(removed), 0)::bigint FROM retention_runs)"
_STATE_SQL = f"{_RUN}, {_FILE}, {_REMOVED}"
_STATE: list[ColumnElement[Any]] = [
    literal_column(sql).label(name) for name, sql in (("run", _RUN), ("file", _FILE), ("removed", _REMOVED))
]
_LOGS = FactoryLog.__table__
_ID = _LOGS.c.factory_log_id


class State(NamedTuple):
    """What must not have changed for a count of settled logs to hold still.

    `run` names a server since it was started, None for a standby; `file` the table; `removed` is how many logs
    retention has taken away in all.
    """

    run: str | None
    file: int
    removed: int

    def same_table(self, other: "State") -> bool:
        """Whether both are of one table on one running server, where an id once settled stays settled."""
        return (self.run, self.file) == (other.run, other.file) and self.run is not None


class Known(NamedTuple):
    """How many logs with ids up to `up_to`, a settled id, match. Holds for every snapshot with the same state.

    No log that matches, nor one that is still to come, has an id below `lowest`.
    """

    state: State
    up_to: int
    logs: int
    lowest: int


class Counted(NamedTuple):
    """One row of `counting`: of the logs that it looked at how many match, how many of these are settled, the first."""

    state: State
    logs: int
    settled: int
    lowest: int

    @classmethod
    def of(cls, row: Sequence[Any]) -> "Counted":
        return cls(State(*row[:3]), *row[3:])


def counting(conditions: Conditions, settled: int | Slot, known: int | Slot | None = None) -> Select[Any]:
    """One row, of the logs with ids above `known`: how many match, how many of them up to `settled`, and the first."""
    is_settled = _ID <= literal(settled, BigInteger)  # noqa: SIM300 - SQL
    newer = () if known is None else (_ID > literal(known, BigInteger),)  # noqa: SIM300
    next_one = literal(derived(settled, lambda number: number + 1), BigInteger)
    columns = (
        func.count().label("logs"),
        func.count().filter(is_settled).label("settled"),
        func.coalesce(func.min(_ID).filter(is_settled), next_one).label("lowest"),
    )
    # A subquery of its own: beside the state, which only a leader may ask for, PostgreSQL does not count in parallel.
    counted = select(*columns).select_from(_LOGS).where(*conditions, *newer).subquery("counted")
    return select(*_STATE, *counted.columns)


async def current_state(connection: asyncpg.Connection) -> State:
    """The state outside any transaction."""
    return State(*await connection.fetchrow(f"SELECT {_STATE_SQL}"))


async def count(connection: AsyncConnection, conditions: Conditions, settled: int, known: int | None = None) -> Counted:
    """See `counting`."""
    return Counted.of((await connection.execute(counting(conditions, settled, known))).one())


def digest(conditions: Conditions) -> bytes:
    """Names a filter by what is asked of PostgreSQL, so that a compiler which is mended finds no old mistakes."""
    asked = select(func.count()).where(*conditions).compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    return hashlib.sha256(f"{asked} {sorted(asked.params.items())}".encode()).digest()


EVERYTHING = digest(())
"""The filter of all logs."""

_KEPT = text(f"""
    SELECT {_STATE_SQL}, up_to, logs, lowest FROM known_counts
    WHERE digest = :digest AND file = {_FILE} AND removed = {_REMOVED}
""").bindparams(bindparam("digest", type_=LargeBinary))  # noqa: S608 - our own text
_FORGET = text("""
    DELETE FROM known_counts
    WHERE digest IN (SELECT digest FROM known_counts ORDER BY made_at DESC, digest OFFSET :most)
""")


async def kept(connection: AsyncConnection, name: bytes) -> Known | None:
    """The count that some worker has kept under this name, if it holds now."""
    row = (await connection.execute(_KEPT, {"digest": name})).one_or_none()
    return None if row is None else Known(State(*row[:3]), *row[3:])


async def keep(database: Database, found: Mapping[bytes, Known], most: int) -> None:
    """Keep counts; of all that are kept, forget all but the newest `most`. Raises DatabaseUnavailableError."""
    rows = [
        {
            "digest": name,
            "file": known.state.file,
            "removed": known.state.removed,
            "up_to": known.up_to,
            "logs": known.logs,
            "lowest": known.lowest,
        }
        for name, known in sorted(found.items())  # in one order, so that two workers cannot wait for each other
    ]
    new = insert(KnownCount).values(rows)
    before, now = KnownCount.__table__.c, new.excluded
    statement = new.on_conflict_do_update(
        index_elements=[before.digest],
        set_={name: now[name] for name in ("file", "removed", "up_to", "logs", "lowest", "made_at")},
        where=(now.file != before.file)
        | (now.removed > before.removed)
        | ((now.removed == before.removed) & (now.up_to > before.up_to)),
    )
    async with database.begin() as connection:
        await connection.execute(statement)
        await connection.execute(_FORGET, {"most": most})

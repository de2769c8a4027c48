"""Storing repairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import orjson
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db import idempotency
from factory_logs.db.engine import Database
from factory_logs.db.idempotency import FirstAnswer, Key
from factory_logs.db.models import Metadata, Repair
from factory_logs.db.records import Record, as_record

COLUMNS = sorted({column.name for column in Repair.__table__.columns} - {"repair_id"} - set(Metadata.__annotations__))
"""The columns that whoever stores a repair sets."""

_ADD = f"""
    INSERT INTO repairs (repair_id, {", ".join(COLUMNS)}, created_by)
    VALUES (coalesce($1::int, nextval(pg_get_serial_sequence('repairs', 'repair_id'))::int),
            {", ".join(f"${n}" for n in range(2, len(COLUMNS) + 3))})
    ON CONFLICT (repair_id) DO NOTHING
    RETURNING repair_id
"""  # noqa: S608 - our own column names
_ADVANCE = """
    SELECT setval(seq, highest)
    FROM pg_get_serial_sequence('repairs', 'repair_id') AS seq, (SELECT max(repair_id) AS highest FROM repairs) AS ids
    WHERE highest > coalesce(pg_sequence_last_value(seq::regclass), 0)
"""


class RepairRepository:
    """The write side of `repairs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, values: Mapping[str, Any], created_by: str | None) -> Record:
        """Store one repair; gives it back as stored."""
        async with self._database.begin() as connection:
            return await _insert(connection, values, created_by)

    async def add_once(
        self, values: Mapping[str, Any], created_by: str | None, key: Key
    ) -> Record | FirstAnswer | None:
        """Like `add`, but where the key was used before nothing is stored and this is what was answered then.

        None where the key was forgotten in this very moment: try again.
        """
        async with self._database.connect() as connection:
            record = await _insert(connection, values, created_by)
            raw: Any = (await connection.get_raw_connection()).driver_connection
            if not await idempotency.claim(raw, key):
                await connection.rollback()
                return await idempotency.find(raw, key)
            await idempotency.finish(raw, key, orjson.dumps(record))
            await connection.commit()
            return record


async def _insert(connection: AsyncConnection, values: Mapping[str, Any], created_by: str | None) -> Record:
    statement = insert(Repair).values(**values, created_by=created_by).returning(*Repair.__table__.columns)
    return as_record((await connection.execute(statement)).one())


async def insert_repairs(
    connection: asyncpg.Connection, repairs: Sequence[Mapping[str, Any]], created_by: str | None
) -> list[int]:
    """Store repairs in one commit, each under its `repair_id` or, where that is None, under the next one.

    Gives the places of those that are not stored because their id is taken.
    """
    taken = []
    async with connection.transaction():
        await connection.execute("LOCK TABLE repairs IN SHARE ROW EXCLUSIVE MODE")
        # Those with ids first; then no other repair may come in until the ids that are given out lie beyond them.
        advanced = False
        for place in sorted(range(len(repairs)), key=lambda place: repairs[place]["repair_id"] is None):
            repair = repairs[place]
            if repair["repair_id"] is None and not advanced:
                await connection.execute(_ADVANCE)
                advanced = True
            values = [repair[name] for name in COLUMNS]
            if await connection.fetchval(_ADD, repair["repair_id"], *values, created_by) is None:
                taken.append(place)
        if not advanced:
            await connection.execute(_ADVANCE)
    return taken

"""The SQL that stores repairs."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import orjson
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db import idempotency_keys
from factory_logs.db.engine import Database
from factory_logs.db.idempotency_keys import FirstResponse, Key
from factory_logs.db.models import Metadata, Repair
from factory_logs.db.records import as_record

COLUMNS = sorted({column.name for column in Repair.__table__.columns} - {"repair_id"} - set(Metadata.__annotations__))
"""The columns of a repair that a client sets."""

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
    """Stores repairs in the table `repairs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, values: Mapping[str, Any], created_by: str | None) -> tuple[int, bytes]:
        """Store one repair. Return its id and its JSON, which is written before the commit."""
        async with self._database.begin() as connection:
            return await _insert(connection, values, created_by)

    async def add_once(
        self, values: Mapping[str, Any], created_by: str | None, key: Key
    ) -> tuple[int, bytes] | FirstResponse | None:
        """Store one repair like `add`; if the key was used before, store nothing and return the first response.

        Return None if the key was deleted at the same time; the client must retry.
        """
        async with self._database.connect() as connection:
            repair_id, text = await _insert(connection, values, created_by)
            raw: Any = (await connection.get_raw_connection()).driver_connection
            if not await idempotency_keys.claim(raw, key):
                await connection.rollback()
                return await idempotency_keys.find(raw, key)
            await idempotency_keys.finish(raw, key, text)
            await connection.commit()
            return repair_id, text


async def _insert(connection: AsyncConnection, values: Mapping[str, Any], created_by: str | None) -> tuple[int, bytes]:
    statement = insert(Repair).values(**values, created_by=created_by).returning(*Repair.__table__.columns)
    record = as_record((await connection.execute(statement)).one())
    return record["repair_id"], orjson.dumps(record)


async def insert_repairs(
    connection: asyncpg.Connection, repairs: Sequence[Mapping[str, Any]], created_by: str | None
) -> list[int]:
    """Store repairs in one commit, each under its `repair_id`, or under the next free id if its `repair_id` is None.

    Return the indexes of repairs that are not stored because their id is taken.
    """
    taken = []
    async with connection.transaction():
        await connection.execute("LOCK TABLE repairs IN SHARE ROW EXCLUSIVE MODE")
        # Repairs with ids are stored first. After that, no other repair may be added until the sequence is above these
        # ids.
        advanced = False
        for index in sorted(range(len(repairs)), key=lambda index: repairs[index]["repair_id"] is None):
            repair = repairs[index]
            if repair["repair_id"] is None and not advanced:
                await connection.execute(_ADVANCE)
                advanced = True
            values = [repair[name] for name in COLUMNS]
            if await connection.fetchval(_ADD, repair["repair_id"], *values, created_by) is None:
                taken.append(index)
        if not advanced:
            await connection.execute(_ADVANCE)
    return taken

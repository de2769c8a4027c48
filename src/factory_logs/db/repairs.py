"""Storing repairs."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import insert

from factory_logs.db.engine import Database, translate_errors
from factory_logs.db.models import Repair
from factory_logs.db.records import Record, as_record


class RepairRepository:
    """The write side of `repairs`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, values: Mapping[str, Any], created_by: str | None) -> Record:
        """Store one repair; gives it back as stored."""
        statement = insert(Repair).values(**values, created_by=created_by).returning(*Repair.__table__.columns)
        with translate_errors():
            async with self._database.engine.begin() as connection:
                return as_record((await connection.execute(statement)).one())

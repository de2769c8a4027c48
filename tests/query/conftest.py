"""Rows for queries, and a function that runs a `q` on them."""

import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy import insert

from factory_logs.db.engine import Database
from factory_logs.db.models import FactoryLog, Repair
from factory_logs.query import FACTORY_LOGS, QueryLimits, Resource, compile_count, compile_rows, parse_query
from tests.conftest import EMPTY_ALL_TABLES
from tests.locking import execute_again_after_deadlock

REPAIR_ROWS: list[dict[str, Any]] = [
    {"repair_id": 1, "product_imei": "1" * 15, "process": "Replaced", "measured_battery_capacity": 2.5},
    {"repair_id": 2, "product_imei": "2" * 15, "process": None, "arrival_date": datetime(2024, 1, 2)},
]
LOG_ROWS: list[dict[str, Any]] = [
    {"app_name": "cit", "repair_id": 1, "product_imei": "1" * 15, "tags": {"jig": "J-1", "n": 1, "at": [5, {"x": 6}]}},
    {"app_name": "CIT", "repair_id": 2, "tags": {"jig": "J-2", "n": 1.0, "ok": True}, "fields": {"b": {"v": 3.28}}},
    {"app_name": "a_b", "repair_id": None, "tags": {"jig": None, "n": "1", "ok": False}, "fields": {"b": {"v": 12}}},
    {"app_name": "a%b", "repair_id": 1, "tags": {"n": 2**53 + 1}, "fields": {"b": "3.28"}},
    {"app_name": "axb", "repair_id": None, "product_imei": "3" * 15, "tags": None, "fields": [1, 2]},
    {"app_name": "cit", "repair_id": None, "tags": {"n": 2**53, "jig": "J-1", "0": "key"}, "fields": "J-1"},
]
"""Ids are 1 to 6; timestamps are hourly, the last two the same."""

Ids = Callable[..., Awaitable[list[int]]]


async def run(database: Database, q: Any, resource: Resource = FACTORY_LOGS) -> list[int]:
    """Check that the count is right and that paging works, and return the ids of the rows in order."""
    query = parse_query(json.dumps(q), resource, QueryLimits())
    rows = compile_rows(query, resource)
    async with database.engine.connect() as connection:
        found = [getattr(row, resource.primary_key) for row in await connection.execute(rows)]
        count = (await connection.execute(compile_count(query, resource))).scalar_one()
        page = [getattr(row, resource.primary_key) for row in await connection.execute(rows.offset(1).limit(2))]
    assert count == len(found)
    assert page == found[1:3]
    return found


@pytest_asyncio.fixture(scope="module")
async def filled(_shared_database: Database) -> Database:
    """Return a database with these rows, for all tests of a module, which only read. A test with `database` empties it,
    so put such a test last."""
    await execute_again_after_deadlock(_shared_database, EMPTY_ALL_TABLES)
    async with _shared_database.engine.begin() as connection:
        for repair in REPAIR_ROWS:
            await connection.execute(insert(Repair).values(**repair))
        for index, log in enumerate(LOG_ROWS):
            moment = datetime(2024, 1, 1, min(index, 4))
            await connection.execute(insert(FactoryLog).values(factory_log_id=index + 1, timestamp=moment, **log))
    return _shared_database


@pytest.fixture
def ids(filled: Database) -> Ids:
    async def of(q: Any, resource: Resource = FACTORY_LOGS) -> list[int]:
        return await run(filled, q, resource)

    return of

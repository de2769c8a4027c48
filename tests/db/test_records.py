"""PostgreSQL's JSON text of a record equals Python's."""

import json
from datetime import datetime

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from factory_logs.db.engine import Database
from factory_logs.db.models import FactoryLog, Repair
from factory_logs.db.records import RecordRepository, as_record, one_page
from factory_logs.query import FACTORY_LOGS, REPAIRS, Resource

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
MOMENTS = st.datetimes() | st.sampled_from([datetime.min, datetime.max, datetime(2024, 1, 31, 12, 0, 0, 500_000)])
FLOATS = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 2363.0, 1e22, 5e-324, 0.1])


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    st.fixed_dictionaries({"app_name": TEXT, "timestamp": MOMENTS, "created_at": MOMENTS, "created_by": TEXT}),
    st.dictionaries(TEXT, TEXT | FLOATS | st.integers(-(2**63), 2**64) | st.none()),
    FLOATS,
)
async def test_a_record_has_the_same_bytes_as_python_would_write(
    database: Database, log: dict[str, object], tags: object, capacity: float
) -> None:
    async with database.begin() as connection:
        await connection.execute(FactoryLog.__table__.delete())
        await connection.execute(insert(FactoryLog).values(**log, tags=tags))
        await connection.execute(insert(FactoryLog).values(app_name="none", timestamp=log["timestamp"]))
    assert await texts(database, FACTORY_LOGS) == await written_by_python(database, FACTORY_LOGS)
    async with database.begin() as connection:
        await connection.execute(Repair.__table__.delete())
        repair = {"product_imei": "1" * 15, "arrival_date": log["timestamp"], "measured_battery_capacity": capacity}
        await connection.execute(insert(Repair).values(**repair, outcome=log["app_name"]))
    (text,), (expected,) = await texts(database, REPAIRS), await written_by_python(database, REPAIRS)
    # Python and PostgreSQL write the exponent of a float differently: 1e+22, 1e22.
    assert json.loads(text) == json.loads(expected)
    assert repr(json.loads(text)["measured_battery_capacity"]) == repr(capacity)


async def texts(database: Database, resource: Resource) -> list[str]:
    repository = RecordRepository(database, resource.table)
    rows = select(resource.table).order_by(resource.primary_key)
    found = await repository.found(rows)
    async with database.connect_reader() as connection:
        count = select(func.count()).select_from(resource.table)
        for offset, page in ((0, ",".join(text for _, text in found)), (2**62, None)):
            statement = one_page(rows, count, resource.table, offset, 10)
            assert tuple((await connection.execute(statement)).one()) == (len(found), page)
    assert [await repository.get(record_id) for record_id, _ in found] == [text for _, text in found]
    return [text for _, text in found]


async def written_by_python(database: Database, resource: Resource) -> list[str]:
    async with database.connect() as connection:
        rows = await connection.execute(select(resource.table).order_by(resource.primary_key))
        return [orjson.dumps(as_record(row)).decode() for row in rows]

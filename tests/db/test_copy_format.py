"""The service's own encoding of COPY stores the same rows as asyncpg's."""

import json
import struct
import tracemalloc
from datetime import datetime

import asyncpg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from factory_logs.db.connecting import connect_once
from factory_logs.db.log_inserts import BYTES_AT_A_TIME, ROWS_AT_A_TIME, copy_logs, copy_logs_without_ids
from factory_logs.db.models import LOG_COLUMNS
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.json_values import canonical_json, jsonb_order

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
JSON = st.dictionaries(TEXT, TEXT | st.integers(-9, 9) | st.floats(-1e9, 1e9), max_size=3).map(
    lambda value: canonical_json(value).decode()
)
LOGS = st.builds(
    NewLog, TEXT, st.none() | st.just("352099001761481") | st.text("0123456789", min_size=15, max_size=15),
    st.none() | st.just(1) | st.just(2), st.datetimes() | st.sampled_from([datetime.min, datetime.max]),
    st.none() | JSON, st.none() | JSON,
)  # fmt: skip
ORDINARY = NewLog("tiger", "352099001761481", None, datetime(2024, 1, 31, 13, 45), '{"jig":"J-07"}', '{"n": 1}')
READ = f"SELECT {', '.join(LOG_COLUMNS)}, created_by, created_at = now() AT TIME ZONE 'utc' FROM factory_logs"
COLUMNS = (*LOG_COLUMNS, "created_by")


async def rows(connection: asyncpg.Connection, order: str) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await connection.fetch(f"{READ} ORDER BY {order}")]


async def stored_by_asyncpg(connection: asyncpg.Connection, logs: list[NewLog], user: str | None) -> None:
    await connection.copy_records_to_table("factory_logs", columns=COLUMNS, records=[(*log, user) for log in logs])


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(LOGS, max_size=6), st.none() | TEXT)
@example([ORDINARY] * 3, "admin")
@example([ORDINARY, ORDINARY._replace(tags=None, fields=None, product_imei=None), ORDINARY], None)
async def test_rows_are_the_same_as_those_that_asyncpg_copies(
    migrated_url: str, logs: list[NewLog], user: str | None
) -> None:
    connection = await connect_once(migrated_url, 10)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("DELETE FROM factory_logs")
        await connection.execute(
            "INSERT INTO repairs (repair_id, product_imei) VALUES (1, '1'), (2, '2') ON CONFLICT DO NOTHING"
        )
        await stored_by_asyncpg(connection, logs, user)
        expected = await rows(connection, "factory_log_id")
        await connection.execute("DELETE FROM factory_logs")
        ids = await copy_logs(connection, NewLogs.of(logs), user)
        assert ids == sorted(ids)
        assert [row[0] for row in await connection.fetch("SELECT factory_log_id FROM factory_logs ORDER BY 1")] == ids
        assert await rows(connection, "factory_log_id") == expected
        await connection.execute("DELETE FROM factory_logs")
        await copy_logs_without_ids(connection, NewLogs.of(logs), user)
        assert await rows(connection, "factory_log_id") == expected
    finally:
        await transaction.rollback()
        await connection.close()


@pytest.mark.parametrize("count", [0, 1, ROWS_AT_A_TIME, ROWS_AT_A_TIME + 1, 2 * ROWS_AT_A_TIME + 1])
async def test_any_number_of_rows_is_stored_in_the_order_of_the_input(migrated_url: str, count: int) -> None:
    logs = [ORDINARY._replace(fields=json.dumps({"n": number})) for number in range(count)]
    connection = await connect_once(migrated_url, 10)
    transaction = connection.transaction()
    await transaction.start()
    try:
        ids = await copy_logs(connection, NewLogs.of(logs), "admin")
        found = await connection.fetch(
            "SELECT factory_log_id, fields FROM factory_logs WHERE factory_log_id = ANY($1) ORDER BY 1", ids
        )
        assert [row[0] for row in found] == ids
        assert [json.loads(row[1])["n"] for row in found] == list(range(count))
    finally:
        await transaction.rollback()
        await connection.close()


async def test_a_batch_of_large_logs_is_encoded_in_bounded_memory_and_in_the_order_of_the_input(
    migrated_url: str,
) -> None:
    sizes = [20 * BYTES_AT_A_TIME // ROWS_AT_A_TIME] * ROWS_AT_A_TIME + [0, 2 * BYTES_AT_A_TIME, 1] * 3
    logs = NewLogs.of([ORDINARY._replace(fields=json.dumps({"text": "x" * size})) for size in sizes])
    connection = await connect_once(migrated_url, 10)
    transaction = connection.transaction()
    await transaction.start()
    try:
        tracemalloc.start()
        try:
            ids = await copy_logs(connection, logs, "admin")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        found = await connection.fetch(
            "SELECT length(fields->>'text') FROM factory_logs WHERE factory_log_id = ANY($1) ORDER BY factory_log_id",
            ids,
        )
        assert [row[0] for row in found] == sizes
        assert peak < 16 * BYTES_AT_A_TIME  # the copies of the largest row
    finally:
        await transaction.rollback()
        await connection.close()


@pytest.mark.parametrize("position", [0, ROWS_AT_A_TIME - 1, ROWS_AT_A_TIME, 2 * ROWS_AT_A_TIME])
@pytest.mark.parametrize("bad", [ORDINARY._replace(fields="{"), ORDINARY._replace(repair_id=2**31)])
async def test_a_batch_that_fails_leaves_a_usable_connection(migrated_url: str, bad: NewLog, position: int) -> None:
    good = [ORDINARY] * (2 * ROWS_AT_A_TIME)
    connection = await connect_once(migrated_url, 10)
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute("DELETE FROM factory_logs")
        with pytest.raises((asyncpg.DataError, struct.error)):  # by PostgreSQL, or before anything is sent
            async with connection.transaction():
                await copy_logs(connection, NewLogs.of([*good[:position], bad, *good[position:]]), None)
        assert await connection.fetchval("SELECT count(*) FROM factory_logs") == 0
        assert len(await copy_logs(connection, NewLogs.of(good[:2]), None)) == 2
    finally:
        await transaction.rollback()
        await connection.close()


@given(st.lists(TEXT, unique=True, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@example(["b", "aa", "a", "é", "z" * 8, "\U0001f600", "\uffff\uffff"])
async def test_names_are_sorted_as_jsonb_sorts_them(migrated_url: str, names: list[str]) -> None:
    connection = await connect_once(migrated_url, 10)
    try:
        found = await connection.fetch("SELECT jsonb_object_keys($1::jsonb)", json.dumps(dict.fromkeys(names)))
    finally:
        await connection.close()
    assert [row[0] for row in found] == sorted(names, key=jsonb_order)

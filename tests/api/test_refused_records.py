"""A record that the operator's own constraint, trigger or index refuses gets a 400, and the others are stored."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
from fastapi import FastAPI

from factory_logs.db.engine import Database
from factory_logs.ingest import batch_writer
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker
from tests.conftest import CITUS_URL

pytestmark = pytest.mark.skipif(CITUS_URL is not None, reason="a cluster takes other constraints and no triggers")

GOOD = {"app_name": "tiger", "timestamp": "2024-01-31", "tags": {"n": 1}}
BAD = GOOD | {"app_name": "refused"}
CHECK = """ALTER TABLE factory_logs ADD CONSTRAINT no_refused CHECK (app_name <> 'refused')"""
FUNCTION = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.app_name = 'refused' THEN {action} END IF;
        RETURN NEW;
    END$$;
    {trigger} EXECUTE FUNCTION refuse()
"""
BEFORE = "CREATE TRIGGER refuse BEFORE INSERT ON factory_logs FOR EACH ROW"
AFTER = "CREATE TRIGGER refuse AFTER INSERT ON factory_logs FOR EACH ROW"
AT_COMMIT = """
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON factory_logs DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
"""
RAISES = "RAISE EXCEPTION 'not from this line';"
RULES = {
    "check": (CHECK, "violates check constraint"),
    "trigger": (FUNCTION.format(action=RAISES, trigger=BEFORE), "not from this line"),
    "trigger afterwards": (FUNCTION.format(action=RAISES, trigger=AFTER), "not from this line"),
    "trigger at the commit": (FUNCTION.format(action=RAISES, trigger=AT_COMMIT), "not from this line"),
    "conversion": (FUNCTION.format(action="PERFORM NEW.app_name::integer;", trigger=BEFORE), "invalid input syntax"),
}
IDS, REPAIR_IDS = "factory_logs_factory_log_id_seq", "repairs_repair_id_seq"
RESTARTED = f"SELECT setval('{IDS}', 1, false), setval('{REPAIR_IDS}', 1, false)"
ADVANCED = f"SELECT setval('{IDS}', 20), setval('{REPAIR_IDS}', 3)"
WITHOUT_RULES = """
    DROP TRIGGER IF EXISTS refuse ON factory_logs;
    DROP FUNCTION IF EXISTS refuse;
    ALTER TABLE factory_logs DROP CONSTRAINT IF EXISTS no_refused;
    ALTER TABLE repairs DROP CONSTRAINT IF EXISTS no_refused;
"""


@pytest.fixture
async def operator(database: Database, migrated_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated_url)
    yield connection
    await connection.execute(WITHOUT_RULES)
    await connection.close()


async def stored_apps(connection: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await connection.fetch("SELECT app_name FROM factory_logs ORDER BY app_name")]


def refused(response: httpx.Response, message: str) -> dict[str, object]:
    """Check that it is a 400 with this message; return the error."""
    assert response.status_code == 400, response.text
    (error,) = response.json()["errors"]
    assert message in error["message"]
    return dict(error)


@pytest.mark.parametrize("rule", RULES)
async def test_of_concurrent_logs_only_the_refused_ones_get_a_400(
    client: httpx.AsyncClient, operator: asyncpg.Connection, rule: str
) -> None:
    statement, message = RULES[rule]
    await operator.execute(statement)
    logs = [BAD if number % 7 == 3 else GOOD for number in range(30)]
    keys = [{"Idempotency-Key": f"key-{number}"} if number % 2 else {} for number in range(30)]
    writes = [client.post("/v1/factory_logs", json=log, headers=key) for log, key in zip(logs, keys, strict=True)]
    for log, response in zip(logs, await asyncio.gather(*writes), strict=True):
        if log is GOOD:
            assert response.status_code == 201, response.text
        else:
            assert "index" not in refused(response, message)
    assert await stored_apps(operator) == ["tiger"] * logs.count(GOOD)
    # The key of a refused log is not used.
    await operator.execute(WITHOUT_RULES)
    again = await client.post("/v1/factory_logs", json=BAD, headers=keys[3])
    assert again.status_code == 201
    assert "idempotency-replayed" not in again.headers


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "one"}], ids=["no key", "key"])
async def test_a_batch_with_a_refused_log_gets_a_400_that_names_it(
    client: httpx.AsyncClient, operator: asyncpg.Connection, rule: str, key: dict[str, str]
) -> None:
    statement, message = RULES[rule]
    await operator.execute(statement)
    response = await client.post("/v1/factory_logs", json=[GOOD, GOOD, BAD, GOOD], headers=key)
    error = refused(response, message)
    if rule in ("check", "trigger", "conversion"):  # the others fail after the last log is copied
        assert error["index"] == 2
    assert await stored_apps(operator) == []
    if key:
        assert response.headers["idempotency-key-used"] == "false"


async def test_a_refused_log_of_a_batch_in_parts_is_named_by_its_index(
    operator: asyncpg.Connection, migrated_url: str, tokens: dict[Level, str]
) -> None:
    await operator.execute(CHECK)
    line = '{"app_name": "tiger", "timestamp": "2024-01-31"}\n'
    body = line * 3000 + line.replace("tiger", "refused") + line
    headers = {"Content-Type": "application/x-ndjson"}
    async with worker(migrated_url, batch_part_bytes=10_000) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        response = await client.post("/v1/factory_logs", content=body, headers=headers)
    assert refused(response, "violates check constraint")["index"] == 3000
    assert await stored_apps(operator) == []


async def test_a_log_that_a_trigger_discards_gets_a_400_that_says_so(
    client: httpx.AsyncClient, operator: asyncpg.Connection
) -> None:
    repair = (await client.post("/v1/repairs", json={"product_imei": "352099001761481"})).json()["repair_id"]
    await operator.execute(FUNCTION.format(action="RETURN NULL;", trigger=BEFORE))
    for log in (BAD, BAD | {"repair_id": repair}):
        refused(await client.post("/v1/factory_logs", json=log), "a trigger of the database discards it")
    refused(await client.post("/v1/factory_logs", json=BAD | {"repair_id": repair + 1}), "there is no repair")
    assert (await client.post("/v1/factory_logs", json=GOOD)).status_code == 201


async def test_a_full_disk_after_the_last_log_of_a_batch_gets_a_503(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> list[int]:
        error = asyncpg.DiskFullError("could not extend file")
        error.context = "COPY factory_logs, line 3"  # PostgreSQL has read the end of the data
        raise error

    monkeypatch.setattr(batch_writer, "copy_logs", fail)
    response = await client.post("/v1/factory_logs", json=[GOOD, GOOD])
    assert (response.status_code, "retry-after" in response.headers) == (503, True), response.text


@pytest.mark.parametrize("points", [1, 3])
async def test_a_refused_point_gets_a_400(client: httpx.AsyncClient, operator: asyncpg.Connection, points: int) -> None:
    await operator.execute(CHECK)
    response = await client.post("/write?db=x", content="\n".join(["refused f=1"] * points))
    assert response.status_code == 400, response.text
    assert "violates check constraint" in response.json()["error"]
    assert await stored_apps(operator) == []


async def test_ids_that_records_already_have_do_not_refuse_a_record(
    own_app: FastAPI, tokens: dict[Level, str], operator: asyncpg.Connection
) -> None:
    """Logical replication copies no sequences, so the ids of the promoted server begin at 1 again."""
    repair = {"product_imei": "352099001761481"}
    writes: list[tuple[str, dict[str, object]]] = [
        ("/v1/factory_logs", {"json": GOOD}),
        ("/v1/factory_logs", {"json": GOOD, "headers": {"Idempotency-Key": "one"}}),
        ("/v1/factory_logs", {"json": [GOOD, GOOD], "headers": {"Idempotency-Key": "two"}}),
        ("/write?db=x", {"content": "tiger f=1"}),
        ("/write?db=x", {"content": "tiger f=1\ntiger f=2"}),
        ("/v1/repairs", {"json": repair}),
        ("/v1/repairs", {"json": repair, "headers": {"Idempotency-Key": "three"}}),
    ]
    async with client_of(own_app, tokens[Level.SYSTEM]) as client:
        assert (await client.post("/v1/factory_logs", json=[GOOD] * 20)).status_code == 201
        for _ in range(3):
            assert (await client.post("/v1/repairs", json=repair)).status_code == 201
        await operator.execute(RESTARTED)
        for path, request in writes:
            response = await client.post(path, **request)  # type: ignore[arg-type]
            assert (response.status_code, "retry-after" in response.headers) == (503, True), response.text
        await operator.execute(ADVANCED)
        for path, request in writes:
            response = await client.post(path, **request)  # type: ignore[arg-type]
            assert response.status_code in (201, 204), response.text
            assert "idempotency-replayed" not in response.headers
    assert await operator.fetchval("SELECT count(*) FROM factory_logs") == 20 + 7


async def test_a_sequence_without_more_ids_does_not_refuse_a_record(
    own_app: FastAPI, tokens: dict[Level, str], operator: asyncpg.Connection
) -> None:
    async with client_of(own_app, tokens[Level.SYSTEM]) as client:
        await operator.execute(f"ALTER SEQUENCE {IDS} MAXVALUE 2")
        try:
            for status in (201, 201, 503):
                response = await client.post("/v1/factory_logs", json=GOOD)
                assert response.status_code == status, response.text
            assert (await client.post("/v1/factory_logs", json=[GOOD])).status_code == 503
        finally:
            await operator.execute(f"ALTER SEQUENCE {IDS} NO MAXVALUE")
        assert (await client.post("/v1/factory_logs", json=GOOD)).status_code == 201


async def test_a_refused_repair_gets_a_400(client: httpx.AsyncClient, operator: asyncpg.Connection) -> None:
    await operator.execute("ALTER TABLE repairs ADD CONSTRAINT no_refused CHECK (process <> 'Replaced')")
    repair = {"product_imei": "352099001761481", "process": "Replaced"}
    for headers in ({}, {"Idempotency-Key": "one"}):
        response = await client.post("/v1/repairs", json=repair, headers=headers)
        refused(response, "violates check constraint")


async def test_an_error_in_a_trigger_is_a_500_of_its_own_request_only(
    client: httpx.AsyncClient, operator: asyncpg.Connection
) -> None:
    await operator.execute(FUNCTION.format(action="PERFORM no_such_function();", trigger=BEFORE))
    writes = [client.post("/v1/factory_logs", json=log) for log in [GOOD, GOOD, BAD, GOOD]]
    assert [response.status_code for response in await asyncio.gather(*writes)] == [201, 201, 500, 201]
    assert await stored_apps(operator) == ["tiger"] * 3

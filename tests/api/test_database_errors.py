"""If PostgreSQL's state causes an error, every call returns a 503 with `Retry-After`, never a 500
(docs/reference/http-api.md#errors)."""

import json
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker
from tests.conftest import with_parameters

TABLES = ("factory_logs", "repairs", "tokens", "users", "alembic_version")
STATES = (
    "08000", "08006", "08P01", "25006", "25P03", "25P04", "40001", "40P01", "53100", "53200", "53300", "53400", "55P03",
    "57014", "57P01", "57P02", "57P03", "57P05", "58000", "58030", "58P01", "XX000",
)  # fmt: skip
MESSAGE = "connection to the remote node localhost:9700 failed"
LOG = {"app_name": "jig", "timestamp": "2024-01-31T13:45:00Z"}
NDJSON = {"Content-Type": "application/x-ndjson"}
TRAVERSAL = {"cursor": "", "q": json.dumps({"order_by": [{"field": "fields__v"}]})}
LOGIN = {"username": "system", "password": "open sesame"}
CALLS = [
    ("POST", "/v1/factory_logs", {"json": LOG}),
    ("POST", "/v1/factory_logs", {"json": LOG, "headers": {"Idempotency-Key": "one"}}),
    ("POST", "/v1/factory_logs", {"json": [LOG, LOG]}),
    ("POST", "/v1/factory_logs?on_error=skip", {"json": [LOG, LOG], "headers": {"Idempotency-Key": "two"}}),
    ("POST", "/v1/factory_logs", {"content": json.dumps(LOG) + "\n", "headers": NDJSON}),
    ("POST", "/write?db=logs", {"content": "jig v=1"}),
    ("POST", "/api/v2/write?bucket=logs&org=o", {"content": "jig v=2"}),
    ("POST", "/v1/repairs", {"json": {"product_imei": "490154203237518"}}),
    ("POST", "/v1/repairs", {"json": {"product_imei": "490154203237518"}, "headers": {"Idempotency-Key": "three"}}),
    ("GET", "/v1/factory_logs/1", {}),
    ("GET", "/v1/factory_logs", {}),
    ("GET", "/v1/factory_logs", {"params": TRAVERSAL}),
    ("GET", "/v1/factory_logs", {"params": {"q": json.dumps({"single": True})}}),
    ("GET", "/v1/factory_logs", {"headers": {"Accept": "application/x-ndjson"}}),
    ("GET", "/v1/factory_logs", {"headers": {"Accept": "text/csv"}}),
    ("GET", "/v1/factory_logs/stats", {"params": {"bucket": "1h", "by": "app_name", "field": "fields__v"}}),
    ("GET", "/v1/factory_logs/yield", {"params": {"bucket": "1d"}}),
    ("GET", "/v1/factory_logs/failures", {}),
    ("GET", "/v1/factory_logs/distribution", {"params": {"field": "fields__v"}}),
    ("GET", "/v1/factory_logs/facets", {"params": {"field": "app_name"}}),
    ("GET", "/v1/factory_logs/catalog", {}),
    ("GET", "/v1/units/490154203237518", {}),
]
"""Each kind of call that comes to the table of logs, or to that of repairs."""
OTHER_CALLS = [
    ("GET", "/v1/repairs", {}),
    ("GET", "/v1/repairs", {"params": {"cursor": ""}}),
    ("GET", "/v1/repairs/1", {}),
    ("GET", "/v1/auth/validate_user?username=system", {}),
    ("POST", "/v1/auth/login", {"json": LOGIN}),
    ("POST", "/v1/auth/login", {"data": LOGIN}),
    ("GET", "/v1/factory_logs", {"headers": {"Authorization": "Token token=not-seen-before"}}),
    ("GET", "/readyz", {}),
]


@pytest.fixture
async def administrator(database: Database, migrated_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(migrated_url)
    yield connection
    await connection.close()


@pytest.fixture
async def failing_url(administrator: asyncpg.Connection, migrated_url: str) -> AsyncIterator[str]:
    """Yield the URL of a database with views; each statement on them fails with the SQLSTATE in `failing.state`, if
    any."""
    await administrator.execute("CREATE SCHEMA failing; CREATE TABLE failing.state (code text)")
    for table in TABLES:
        await administrator.execute(f"""
            CREATE FUNCTION failing.{table}() RETURNS SETOF public.{table} LANGUAGE plpgsql AS $$
            DECLARE forced text := (SELECT code FROM failing.state);
            BEGIN
                IF forced IS NOT NULL THEN RAISE EXCEPTION '{MESSAGE}' USING ERRCODE = forced; END IF;
                RETURN QUERY SELECT * FROM public.{table};
            END$$;
            CREATE VIEW failing.{table} AS SELECT * FROM failing.{table}();
            CREATE FUNCTION failing.insert_{table}() RETURNS trigger LANGUAGE plpgsql AS
                $$BEGIN PERFORM * FROM failing.{table}(); RETURN NEW; END$$;
            CREATE TRIGGER fail INSTEAD OF INSERT ON failing.{table} FOR EACH ROW
                EXECUTE FUNCTION failing.insert_{table}();
        """)
    yield with_parameters(migrated_url, "search_path=failing,public")
    await administrator.execute("DROP SCHEMA failing CASCADE")


def assert_unavailable(response: httpx.Response, call: object) -> None:
    assert response.status_code == 503, (call, response.status_code, response.text)
    assert int(response.headers["retry-after"]) > 0, call
    assert MESSAGE not in response.text, call


@pytest.mark.slow
async def test_each_sqlstate_of_the_servers_state_gets_a_503_on_every_kind_of_call(
    failing_url: str, administrator: asyncpg.Connection, tokens: dict[Level, str]
) -> None:
    async with worker(failing_url, token_cache_seconds=600.0) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        assert (await client.get("/v1/factory_logs")).status_code == 200  # the token is cached now
        await administrator.execute("INSERT INTO failing.state VALUES (NULL)")
        for state in STATES:
            await administrator.execute("UPDATE failing.state SET code = $1", state)
            for method, path, details in [*CALLS, *OTHER_CALLS]:
                response = await client.request(method, path, **details)  # type: ignore[arg-type]
                assert_unavailable(response, (state, method, path, details))
        await administrator.execute("UPDATE failing.state SET code = NULL")
        for method, path, _ in OTHER_CALLS:
            if method == "GET":
                assert (await client.get(path)).status_code in (200, 404), path


@pytest.mark.slow
async def test_a_locked_table_gets_a_503_on_every_kind_of_call(
    administrator: asyncpg.Connection, migrated_url: str, tokens: dict[Level, str]
) -> None:
    url = with_parameters(migrated_url, "lock_timeout=20")  # as ALTER ROLE ... SET lock_timeout does
    async with worker(url, token_cache_seconds=600.0) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        assert (await client.get("/v1/factory_logs")).status_code == 200
        async with administrator.transaction():
            await administrator.execute(f"LOCK TABLE {', '.join(TABLES)} IN ACCESS EXCLUSIVE MODE")
            for method, path, details in [*CALLS, *OTHER_CALLS]:
                response = await client.request(method, path, **details)  # type: ignore[arg-type]
                assert_unavailable(response, (method, path, details))
        for method, path, details in CALLS:
            response = await client.request(method, path, **details)  # type: ignore[arg-type]
            assert response.status_code < 500, (method, path, response.text)


async def test_settings_of_the_database_and_the_role_do_not_change_responses(
    administrator: asyncpg.Connection, migrated_url: str, tokens: dict[Level, str]
) -> None:
    hostile = "DateStyle=German,DMY&TimeZone=Asia/Shanghai&extra_float_digits=-15&standard_conforming_strings=off"
    log = LOG | {"timestamp": "2024-01-31T13:45:00.25Z", "fields": {"v": 0.1 + 0.2, "path": "C:\\jig"}}
    params = {"by": "timestamp", "field": "fields__v"}
    found = []
    for url in (migrated_url, with_parameters(migrated_url, hostile)):
        async with worker(url) as app, client_of(app, tokens[Level.SYSTEM]) as client:
            stored = (await client.post("/v1/factory_logs", json=log)).json()
            assert (await client.get(f"/v1/factory_logs/{stored['factory_log_id']}")).json() == stored
            assert stored["timestamp"] == "2024-01-31 13:45:00.250000"
            q = json.dumps({"filters": [{"name": "fields__path", "op": "like", "val": "C:%jig"}], "limit": 1})
            found.append(
                [
                    (await client.get("/v1/factory_logs", params={"q": q})).json()["objects"],
                    (await client.get("/v1/factory_logs", params={"q": q}, headers={"Accept": "text/csv"})).text,
                    (await client.get("/v1/factory_logs/stats", params=params)).json()["buckets"][0]["timestamp"],
                ]
            )
    assert found[0] == found[1]

"""Every write accepts an Idempotency-Key (docs/reference/http-api.md#idempotency)."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import asyncpg
import httpx
import pytest
import zstandard
from fastapi import FastAPI

from factory_logs.db import idempotency_keys
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.errors import BadRequestError
from factory_logs.ingest import single_records
from factory_logs.ingest.idempotency import RETRY_PREFIX, RETRY_SECONDS
from factory_logs.permissions import Level
from factory_logs.security.tokens import issue_token
from tests.api.conftest import client_of, worker

LOG = {"app_name": "koala_test_jig_production", "timestamp": "2024-01-31 13:45:00", "fields": {"passed": True}}
REPAIR = {"product_imei": "352099001761481", "process": "Replaced"}
KEY = {"Idempotency-Key": "b1c6-7"}

WRITES = pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("/v1/factory_logs", LOG, LOG | {"fields": None}),
        ("/v1/factory_logs", [LOG, LOG], [LOG]),
        ("/v1/repairs", REPAIR, REPAIR | {"process": "Repossessed"}),
    ],
    ids=["log", "batch", "repair"],
)


async def post(
    client: httpx.AsyncClient, path: str, body: object, headers: Mapping[str, str] = KEY, **params: str
) -> httpx.Response:
    return await client.post(path, json=body, headers=headers, params=params)


async def count(client: httpx.AsyncClient, path: str = "/v1/factory_logs") -> int:
    number: int = (await client.get(path)).json()["num_results"]
    return number


@WRITES
async def test_the_same_key_and_body_returns_the_first_response_again(
    client: httpx.AsyncClient, path: str, body: object, other: object
) -> None:
    first = await post(client, path, body)
    stored = await count(client, path)
    again = await post(client, path, body)
    assert first.status_code == again.status_code == 201
    assert again.content == first.content
    assert again.headers.get("location") == first.headers.get("location")
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert await count(client, path) == stored


@pytest.mark.slow
@WRITES
async def test_the_same_key_with_another_body_gets_a_409(
    client: httpx.AsyncClient, path: str, body: object, other: object
) -> None:
    await post(client, path, body)
    stored = await count(client, path)
    response = await post(client, path, other)
    assert response.status_code == 409
    assert await count(client, path) == stored


@WRITES
async def test_a_rejected_write_does_not_use_up_its_key(
    client: httpx.AsyncClient, path: str, body: object, other: object
) -> None:
    bad = {"nonsense": 1} if isinstance(body, dict) else [{"nonsense": 1}]
    assert (await post(client, path, bad)).status_code == 400
    assert (await post(client, path, body)).status_code == 201


async def test_an_unknown_repair_does_not_use_up_the_key(client: httpx.AsyncClient) -> None:
    for body in (LOG | {"repair_id": 1}, [LOG | {"repair_id": 1}]):
        assert (await post(client, "/v1/factory_logs", body)).status_code == 400
    assert (await post(client, "/v1/factory_logs", LOG)).status_code == 201


async def test_keys_of_two_users_are_two_keys(client: httpx.AsyncClient, app, database: Database) -> None:
    other = await UserRepository(database).create("other-jig", "Other", None, Level.SYSTEM)
    token = await issue_token(database, other.user_id, expires_at=None)
    async with client_of(app, token) as second:
        for key, body in (("single", LOG), ("batch", [LOG, LOG])):
            headers = {"Idempotency-Key": key}
            responses = [await each.post("/v1/factory_logs", json=body, headers=headers) for each in (client, second)]
            assert [response.status_code for response in responses] == [201, 201]
            assert responses[0].json() != responses[1].json()
            for each, first in zip((client, second), responses, strict=True):
                again = await each.post("/v1/factory_logs", json=body, headers=headers)
                assert (again.json(), again.headers["idempotency-replayed"]) == (first.json(), "true")


async def test_a_key_is_one_write_in_every_form_of_the_body(client: httpx.AsyncClient) -> None:
    assert (await post(client, "/v1/factory_logs", LOG)).status_code == 201
    assert (await post(client, "/v1/factory_logs", [LOG])).status_code == 409
    assert (await post(client, "/v1/repairs", REPAIR)).status_code == 409


async def test_another_encoding_of_the_same_body_is_the_same_body(client: httpx.AsyncClient) -> None:
    body = json.dumps(LOG).encode()
    headers = KEY | {"Content-Type": "application/json"}
    first = await client.post("/v1/factory_logs", content=body, headers=headers)
    packed = headers | {"Content-Encoding": "gzip"}
    again = await client.post("/v1/factory_logs", content=gzip.compress(body), headers=packed)
    assert (again.status_code, again.content) == (201, first.content)


async def test_a_retried_batch_returns_again_the_records_it_skipped(client: httpx.AsyncClient) -> None:
    body = [LOG, {"app_name": ""}]
    first = await post(client, "/v1/factory_logs", body, on_error="skip")
    again = await post(client, "/v1/factory_logs", body, on_error="skip")
    assert again.content == first.content
    assert again.json()["num_rejected"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("key", ["", " ", "x" * 256, "naïve", "tab\there"])
async def test_a_key_that_is_not_visible_ascii_gets_a_400(client: httpx.AsyncClient, key: str) -> None:
    response = await post(client, "/v1/factory_logs", LOG, {"Idempotency-Key": key.encode("latin-1")})
    assert response.status_code == 400
    assert "Idempotency-Key" in response.json()["message"]


@pytest.mark.slow
async def test_a_key_may_have_255_characters(client: httpx.AsyncClient) -> None:
    assert (await post(client, "/v1/factory_logs", LOG, {"Idempotency-Key": "x" * 255})).status_code == 201


@pytest.mark.slow
@WRITES
async def test_fifty_concurrent_tries_on_several_workers_store_once(
    database: Database, tokens, migrated_url: str, path: str, body: object, other: object
) -> None:
    token = tokens[Level.SYSTEM]
    async with (
        worker(migrated_url) as one,
        worker(migrated_url) as two,
        worker(migrated_url) as three,
        client_of(one, token) as first,
        client_of(two, token) as second,
        client_of(three, token) as third,
    ):
        clients = [(first, second, third)[number % 3] for number in range(50)]
        responses = await asyncio.gather(*(post(client, path, body) for client in clients))
        assert {response.status_code for response in responses} == {201}
        assert len({response.content for response in responses}) == 1
        assert sum("idempotency-replayed" not in response.headers for response in responses) == 1
        assert await count(first, path) == (2 if isinstance(body, list) else 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/factory_logs", LOG),
        ("/v1/factory_logs", LOG | {"repair_id": 1}),
        ("/v1/factory_logs", [LOG, LOG]),
        ("/v1/repairs", REPAIR),
        ("/api/v2/write?bucket=x", "tiger passed=true 1706708700123456789"),
    ],
    ids=["log", "log of a repair", "batch", "repair", "point"],
)
async def test_a_key_that_is_forgotten_just_as_it_is_used_again_gets_a_503(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str, body: object
) -> None:
    def too_late(find: Callable[[asyncpg.Connection, Any], Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def find_too_late(connection: asyncpg.Connection, wanted: Any) -> Any:
            await idempotency_keys.purge(connection, -60, RETRY_PREFIX, RETRY_SECONDS)
            return await find(connection, wanted)

        return find_too_late

    async def write() -> httpx.Response:
        content = body if isinstance(body, str) else json.dumps(body)
        return await client.post(path, content=content, headers=KEY | {"Content-Type": "application/json"})

    assert (await client.post("/v1/repairs", json=REPAIR)).json()["repair_id"] == 1
    first = await write()
    assert first.is_success
    stored = await count(client), await count(client, "/v1/repairs")
    with monkeypatch.context() as patched:
        patched.setattr(idempotency_keys, "find", too_late(idempotency_keys.find))
        patched.setattr(idempotency_keys, "find_after_commit", too_late(idempotency_keys.find_after_commit))
        refused = await write()
    assert refused.status_code == 503
    assert "This Idempotency-Key has just expired; try again" in refused.text
    assert int(refused.headers["Retry-After"]) >= 1
    assert (await count(client), await count(client, "/v1/repairs")) == stored
    assert (await write()).is_success


async def test_a_log_of_no_repair_gets_a_400_under_a_key_too(client: httpx.AsyncClient) -> None:
    refused = await post(client, "/v1/factory_logs", LOG | {"repair_id": 7})
    assert refused.status_code == 400
    assert refused.json()["errors"] == [{"field": "repair_id", "message": "there is no repair 7"}]


LONG = {"fields": {"text": "x" * 300}}
LOGS = [LOG | LONG, LOG, LOG]
JSON_TYPE, NDJSON_TYPE = {"Content-Type": "application/json"}, {"Content-Type": "application/x-ndjson"}
LINES = b"".join(json.dumps(log).encode() + b"\n" for log in LOGS)
POINTS = b'tiger text="' + b"x" * 300 + b'" 1706708700123456789\ntiger passed=true 1706708700123456790\n'
CODINGS = {"identity": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}
STRICTER = pytest.mark.parametrize(
    ("path", "content_type", "body", "limits"),
    [
        ("/v1/factory_logs", JSON_TYPE, json.dumps(LOG | LONG).encode(), {"max_record_bytes": 200}),
        ("/v1/factory_logs", JSON_TYPE, json.dumps(LOGS).encode(), {"max_record_bytes": 200}),
        ("/v1/factory_logs", JSON_TYPE, json.dumps(LOGS).encode(), {"max_body_records": 2}),
        ("/v1/factory_logs", NDJSON_TYPE, LINES, {"max_record_bytes": 200}),
        ("/v1/factory_logs", NDJSON_TYPE, LINES, {"max_body_records": 2}),
        ("/v1/factory_logs", NDJSON_TYPE, LINES, {"max_record_bytes": 200, "batch_part_bytes": 64}),
        ("/v1/factory_logs", NDJSON_TYPE, LINES, {"max_body_records": 1, "batch_part_bytes": 64}),
        ("/v1/factory_logs?on_error=skip", NDJSON_TYPE, LINES, {"max_record_bytes": 200, "batch_part_bytes": 64}),
        ("/write?db=x", {}, POINTS, {"max_record_bytes": 200}),
        ("/write?db=x", {}, POINTS, {"max_body_records": 1}),
        ("/write?db=x", {}, POINTS, {"max_record_bytes": 10}),
        ("/write?db=x", {}, POINTS, {"max_record_bytes": 10, "batch_part_bytes": 64}),
        ("/write?db=x", {}, POINTS, {"max_body_records": 1, "batch_part_bytes": 64}),
        ("/api/v2/write?bucket=x", {}, POINTS.partition(b"\n")[0], {"max_record_bytes": 200}),
    ],
)  # fmt: skip


@pytest.mark.slow
@STRICTER
async def test_a_service_that_has_become_stricter_still_returns_the_first_response_to_a_retry(
    client: httpx.AsyncClient,
    tokens: dict[Level, str],
    migrated_url: str,
    path: str,
    content_type: dict[str, str],
    body: bytes,
    limits: dict[str, int],
) -> None:
    coding = list(CODINGS)[len(body) % len(CODINGS)]
    headers, packed = KEY | content_type | {"Content-Encoding": coding}, CODINGS[coding]
    first = await client.post(path, content=packed(body), headers=headers)
    assert first.is_success
    number = await count(client)
    async with worker(migrated_url, **limits) as stricter, client_of(stricter, tokens[Level.SYSTEM]) as strict:
        again = await strict.post(path, content=packed(body), headers=headers)
        assert again.status_code == first.status_code
        assert again.headers.get("location") == first.headers.get("location")
        assert again.headers["idempotency-replayed"] == "true"
        assert (again.json() if again.content else None) == (first.json() if first.content else None)

        other = await strict.post(path, content=packed(body + body), headers=headers)
        assert other.status_code == 409
        if path == "/v1/factory_logs":  # the others store the good records
            refused = await strict.post(path, content=packed(body), headers=headers | {"Idempotency-Key": "unused"})
            assert refused.status_code in (400, 413)
            assert refused.headers["idempotency-key-used"] == "false"
            assert (await strict.post(path, content=packed(body), headers=content_type | {
                "Content-Encoding": coding})).headers.get("idempotency-key-used") is None  # fmt: skip
    assert await count(client) == number


@pytest.mark.slow
@pytest.mark.parametrize("coding", ["identity", "gzip"])
async def test_a_413_that_is_sent_before_the_body_is_read_says_whether_the_key_is_used(
    client: httpx.AsyncClient, tokens: dict[Level, str], migrated_url: str, coding: str
) -> None:
    headers = KEY | JSON_TYPE | {"Content-Encoding": coding}
    packed = CODINGS[coding]
    body = packed(json.dumps(LOGS).encode())
    assert (await client.post("/v1/factory_logs", content=body, headers=headers)).status_code == 201
    async with worker(migrated_url, max_body_bytes=100) as small, client_of(small, tokens[Level.SYSTEM]) as strict:
        refused = await strict.post("/v1/factory_logs", content=body, headers=headers)
        assert (refused.status_code, refused.headers["idempotency-key-used"]) == (413, "true")
        refused = await strict.post("/v1/factory_logs", content=body, headers=headers | {"Idempotency-Key": "unused"})
        assert (refused.status_code, refused.headers["idempotency-key-used"]) == (413, "false")
    assert await count(client) == len(LOGS)


@pytest.mark.slow
async def test_a_refusal_waits_for_a_write_that_is_being_stored_under_its_key(
    client: httpx.AsyncClient, tokens: dict[Level, str], migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    finish, may_end, is_claimed = idempotency_keys.finish, asyncio.Event(), asyncio.Event()

    async def finish_later(connection: asyncpg.Connection, key: idempotency_keys.Key, body: bytes) -> None:
        is_claimed.set()
        await may_end.wait()
        await finish(connection, key, body)

    monkeypatch.setattr(idempotency_keys, "finish", finish_later)
    headers = KEY | NDJSON_TYPE
    async with (
        worker(migrated_url, max_body_records=1) as stricter,
        client_of(stricter, tokens[Level.SYSTEM]) as strict,
    ):
        storing = asyncio.create_task(client.post("/v1/factory_logs", content=LINES, headers=headers))
        await is_claimed.wait()
        refusing = asyncio.create_task(strict.post("/v1/factory_logs", content=LINES, headers=headers))
        async with asyncio.timeout(60):
            while not await _is_waiting(migrated_url):
                await asyncio.sleep(0.01)
        may_end.set()
        first, again = await storing, await refusing
    assert (again.status_code, again.content) == (201, first.content)
    assert await count(client) == len(LOGS)


async def _is_waiting(url: str) -> bool:
    """Return whether a transaction waits for the end of another one."""
    connection = await asyncpg.connect(url)
    try:
        return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))
    finally:
        await connection.close()


async def test_a_repair_that_is_refused_now_is_returned_to_a_retry(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await post(client, "/v1/repairs", REPAIR)

    def refuse(*_: object) -> None:
        raise BadRequestError("a new rule")

    monkeypatch.setattr(single_records, "parse_model", refuse)
    again = await post(client, "/v1/repairs", REPAIR)
    assert (again.status_code, again.content) == (201, first.content)
    assert again.headers["location"] == first.headers["location"]
    refused = await post(client, "/v1/repairs", REPAIR, {"Idempotency-Key": "unused"})
    assert (refused.status_code, refused.headers["idempotency-key-used"]) == (400, "false")


async def test_a_refused_write_whose_key_cannot_be_looked_up_gets_a_503(
    own_app: FastAPI, tokens: dict[Level, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(own_app, tokens[Level.SYSTEM]) as client:
        assert await count(client) == 0  # the token is cached now
        database = own_app.state.services.database
        monkeypatch.setattr(database, "dsn", "postgresql://nobody@127.0.0.1:1/nowhere")
        assert (await post(client, "/v1/factory_logs", {}, {})).status_code == 400
        for path, body in (("/v1/factory_logs", {}), ("/v1/factory_logs", [{}]), ("/v1/repairs", {})):
            refused = await post(client, path, body)
            assert refused.status_code == 503
            assert int(refused.headers["retry-after"]) > 0
            assert "idempotency-key-used" not in refused.headers

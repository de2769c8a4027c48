"""Input that the legacy API accepts: integers as text, the server's time, empty datetimes, and a byte order mark."""

import gzip
import json
from codecs import BOM_UTF8
from datetime import UTC, datetime, timedelta

import httpx
import orjson
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

LOG = {"app_name": "a", "timestamp": "2024-01-31"}
TEXT = json.dumps(LOG)
FORM = "application/x-www-form-urlencoded"
REPAIR = {"product_imei": "352099001761481"}
BODIES = {
    "one": ("/v1/factory_logs", "application/json", TEXT),
    "array": ("/v1/factory_logs", "application/json", f"[{TEXT}]"),
    "ndjson": ("/v1/factory_logs", "application/x-ndjson", f"{TEXT}\n" * 3),
    "repair": ("/v1/repairs", "application/json", json.dumps(REPAIR)),
    "line protocol": ("/write?db=x", "text/plain", "a f=1 1\na f=2 2"),
    "line protocol 2": ("/api/v2/write?bucket=x", "text/plain", "a f=1 1\na f=2 2"),
}


def now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)


async def test_a_repair_id_may_be_a_string_of_digits(client: httpx.AsyncClient) -> None:
    await client.post("/v1/repairs", json=REPAIR)
    for sent in ("1", 1.0, 1):
        for body in (LOG | {"repair_id": sent}, [LOG | {"repair_id": sent}]):
            response = await client.post("/v1/factory_logs", json=body)
            assert response.status_code == 201, response.text
    logs = (await client.get("/v1/factory_logs")).json()["objects"]
    assert [log["repair_id"] for log in logs] == [1] * 6
    response = await client.post("/v1/factory_logs", json=LOG | {"repair_id": "7"})
    assert response.json()["errors"] == [{"field": "repair_id", "message": "there is no repair 7"}]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("q", "found"),
    [
        ({"limit": "2"}, [1, 2]), ({"limit": 2.0}, [1, 2]), ({"limit": "2", "offset": "1"}, [2, 3]),
        ({"offset": 2.0}, [3, 4]), ({"limit": "0"}, [1, 2, 3, 4]), ({"limit": ""}, [1, 2, 3, 4]),
        ({"offset": "000"}, [1, 2, 3, 4]),
    ],
)  # fmt: skip
async def test_limit_and_offset_may_be_strings_of_digits(
    client: httpx.AsyncClient, q: object, found: list[int]
) -> None:
    await client.post("/v1/factory_logs", json=[LOG] * 4)
    for mark in ("", "\ufeff"):
        response = await client.get("/v1/factory_logs", params={"q": mark + json.dumps(q)})
        assert [log["factory_log_id"] for log in response.json()["objects"]] == found


@pytest.mark.slow
@pytest.mark.parametrize("count", ["-1", "2.0", "x", " 2", 2.5, -2.0, True, "9" * 30, [1]])
async def test_any_other_limit_is_refused(client: httpx.AsyncClient, count: object) -> None:
    for name in ("limit", "offset"):
        response = await client.get("/v1/factory_logs", params={"q": json.dumps({name: count})})
        assert response.status_code == 400
        assert response.json()["message"].startswith(f"Unable to construct query: {name}: must be an integer")


async def test_a_timestamp_may_be_the_servers_time(client: httpx.AsyncClient) -> None:
    before = now() - timedelta(seconds=1)
    log = LOG | {"timestamp": "CURRENT_TIMESTAMP"}
    single = (await client.post("/v1/factory_logs", json=log)).json()
    await client.post("/v1/factory_logs", json=[log, log])
    logs = (await client.get("/v1/factory_logs")).json()["objects"]
    assert logs[0] == single
    assert len(logs) == 3
    assert all(before < datetime.fromisoformat(each["timestamp"]) <= now() for each in logs)
    repair = (await client.post("/v1/repairs", json=REPAIR | {"arrival_date": "CURRENT_TIMESTAMP"})).json()
    assert before < datetime.fromisoformat(repair["arrival_date"]) <= now()


@pytest.mark.parametrize("escaped", [b"CURRENT_TIMESTAMP", rb"\u0043URRENT_TIMESTAMP"])
async def test_a_log_of_the_servers_time_is_replayed_with_the_time_that_is_stored(
    client: httpx.AsyncClient, escaped: bytes
) -> None:
    log = LOG | {"timestamp": "CURRENT_TIMESTAMP", "fields": {"b": 1, "a": 2.0}}
    text = orjson.dumps(log).replace(b"CURRENT_TIMESTAMP", escaped)
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    first, again = [await client.post("/v1/factory_logs", content=text, headers=headers) for _ in range(2)]
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content


async def test_an_empty_datetime_that_may_be_null_is_null(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/repairs", json=REPAIR | {"arrival_date": "", "refurbishment_date": ""})
    assert response.status_code == 201, response.text
    assert (response.json()["arrival_date"], response.json()["refurbishment_date"]) == (None, None)
    assert (await client.post("/v1/factory_logs", json=LOG | {"timestamp": ""})).status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize("packing", ["identity", "gzip"])
@pytest.mark.parametrize("body_memory_bytes", [1, 1024 * 1024])
@pytest.mark.parametrize("kind", BODIES)
async def test_a_byte_order_mark_before_a_body_is_ignored(
    database: Database, tokens, migrated_url: str, kind: str, body_memory_bytes: int, packing: str
) -> None:
    path, content_type, text = BODIES[kind]
    body = BOM_UTF8 + text.encode()
    headers = {"Content-Type": content_type, "Content-Encoding": packing}
    settings = {"body_memory_bytes": body_memory_bytes, "batch_part_bytes": 1 if body_memory_bytes == 1 else 10**6}
    async with worker(migrated_url, **settings) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        content = gzip.compress(body) if packing == "gzip" else body
        response = await client.post(path, content=content, headers=headers)
        assert response.status_code in (201, 204), response.text
        logs = (await client.get("/v1/factory_logs")).json()["objects"]
        assert {log["app_name"] for log in logs} <= {"a"}


async def test_only_one_mark_and_only_in_front_is_ignored(client: httpx.AsyncClient) -> None:
    for body in (BOM_UTF8 * 2 + TEXT.encode(), TEXT.encode() + BOM_UTF8):
        response = await client.post("/v1/factory_logs", content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == 400


@pytest.mark.slow
@pytest.mark.parametrize("mark", [b"", BOM_UTF8])
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (FORM, "username=jürgen&password=open sesame".encode()),
        (FORM, b"username=j%C3%BCrgen&password=open+sesame"),
        ("application/json", '{"username": "jürgen", "password": "open sesame"}'.encode()),
    ],
)
async def test_a_login_is_read_as_utf_8(
    anonymous: httpx.AsyncClient, database: Database, password_hash: str, content_type: str, body: bytes, mark: bytes
) -> None:
    await UserRepository(database).create("jürgen", "Jürgen", password_hash, Level.OVERVIEW)
    response = await anonymous.post("/v1/auth/login", content=mark + body, headers={"Content-Type": content_type})
    assert response.status_code == 200, response.text
    assert response.json()["message"]["login_successful"]["username"] == "jürgen"


@pytest.mark.parametrize(("fields", "status"), [(20, 401), (21, 400)])
async def test_a_login_form_has_few_fields(anonymous: httpx.AsyncClient, fields: int, status: int) -> None:
    form = "username=x&password=y" + "".join(f"&f{number}=" for number in range(fields - 2))
    response = await anonymous.post("/v1/auth/login", content=form, headers={"Content-Type": FORM})
    assert response.status_code == status

"""Batches: POST /v1/factory_logs with a JSON array or NDJSON (docs/reference/http-api.md#batches)."""

import asyncio
import gzip
import json

import httpx
import pytest
import zstandard

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

LOG = {"app_name": "koala_test_jig_production", "timestamp": "2024-01-31 13:45:00"}
NDJSON = {"Content-Type": "application/x-ndjson"}


def ndjson(records: list[object]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def numbered(count: int) -> list[object]:
    return [LOG | {"fields": {"number": number}} for number in range(count)]


async def stored(client: httpx.AsyncClient) -> list[dict[str, object]]:
    response = await client.get("/v1/factory_logs", params={"results_per_page": 100})
    objects: list[dict[str, object]] = response.json()["objects"]
    return objects


async def post_array(client: httpx.AsyncClient, records: list[object], **params: str) -> httpx.Response:
    return await client.post("/v1/factory_logs", json=records, params=params)


async def post_ndjson(client: httpx.AsyncClient, records: list[object], **params: str) -> httpx.Response:
    return await client.post("/v1/factory_logs", content=ndjson(records), headers=NDJSON, params=params)


POSTS = pytest.mark.parametrize("post", [post_array, post_ndjson])


@pytest.mark.slow
@POSTS
async def test_a_batch_returns_its_ids_in_the_order_of_the_input(client: httpx.AsyncClient, post) -> None:
    response = await post(client, numbered(50))
    body = response.json()
    assert response.status_code == 201
    assert body == {"num_created": 50, "first_id": body["ids"][0], "last_id": body["ids"][-1], "ids": body["ids"]}
    assert [(log["factory_log_id"], log["fields"]["number"]) for log in await stored(client)] == list(
        zip(body["ids"], range(50), strict=True)
    )


@POSTS
async def test_a_log_of_a_batch_is_stored_like_a_single_one(client: httpx.AsyncClient, post) -> None:
    log = LOG | {"product_imei": "352099001761481", "tags": {"π": [1e23, 2**63, None]}, "fields": 3.0}
    single = (await client.post("/v1/factory_logs", json=log)).json()
    (batch_id,) = (await post(client, [log])).json()["ids"]
    batched = (await client.get(f"/v1/factory_logs/{batch_id}")).json()
    own = {"factory_log_id", "created_at"}
    assert {k: v for k, v in batched.items() if k not in own} == {k: v for k, v in single.items() if k not in own}


@POSTS
async def test_an_empty_batch_stores_nothing(client: httpx.AsyncClient, post) -> None:
    response = await post(client, [])
    assert (response.status_code, response.json()) == (
        201,
        {"num_created": 0, "first_id": None, "last_id": None, "ids": []},
    )


@POSTS
async def test_one_bad_record_means_that_nothing_is_stored_and_each_bad_one_is_named(
    client: httpx.AsyncClient, post
) -> None:
    response = await post(client, [LOG, LOG | {"product_imei": "12"}, LOG, LOG | {"repair_id": 7}, {"app_name": "x"}])
    assert response.status_code == 400
    assert response.json()["errors"] == [
        {"index": 1, "field": "product_imei", "message": "expected exactly 15 digits"},
        {"index": 3, "field": "repair_id", "message": "there is no repair 7"},
        {"index": 4, "field": "timestamp", "message": "is required"},
    ]
    assert await stored(client) == []


@POSTS
async def test_on_error_skip_stores_the_good_ones_and_names_the_others(client: httpx.AsyncClient, post) -> None:
    records = [LOG, LOG | {"product_imei": "12"}, LOG | {"repair_id": 7}, LOG | {"fields": "last"}]
    response = await post(client, records, on_error="skip")
    body = response.json()
    assert response.status_code == 201
    assert (body["num_created"], body["num_rejected"]) == (2, 2)
    assert [error["index"] for error in body["errors"]] == [1, 2]
    assert [log["factory_log_id"] for log in await stored(client)] == body["ids"]


@POSTS
async def test_repairs_beyond_the_range_of_ids_do_not_exist(client: httpx.AsyncClient, post) -> None:
    unknown = [2**31, -(2**31) - 1, -(2**63), 2**63, 2**64 - 1]
    records = [LOG | {"repair_id": repair_id, "fields": repair_id} for repair_id in [None, *unknown, None]]
    body = (await post(client, records, on_error="skip")).json()
    assert [(error["index"], error["message"]) for error in body["errors"]] == [
        (index, f"there is no repair {repair_id}") for index, repair_id in enumerate(unknown, 1)
    ]
    assert [log["factory_log_id"] for log in await stored(client)] == body["ids"]


@POSTS
async def test_on_error_skip_lists_no_errors_if_every_log_is_good(client: httpx.AsyncClient, post) -> None:
    body = (await post(client, [LOG], on_error="skip")).json()
    assert (body["num_created"], body["num_rejected"], body["errors"]) == (1, 0, [])


@POSTS
async def test_the_first_hundred_bad_records_are_listed(client: httpx.AsyncClient, post) -> None:
    records = [LOG | ({"repair_id": 9} if number % 2 else {"product_imei": "?"}) for number in range(210)]
    for params, status in (({}, 400), ({"on_error": "skip"}, 201)):
        response = await post(client, records, **params)
        assert response.status_code == status
        assert [error["index"] for error in response.json()["errors"]] == list(range(100))


async def test_any_other_on_error_is_refused(client: httpx.AsyncClient) -> None:
    response = await post_array(client, [LOG], on_error="ignore")
    assert (response.status_code, response.json()["errors"][0]["field"]) == (400, "on_error")


@pytest.mark.parametrize(
    "body",
    ["[", "[1,]", '[{"app_name": "x"} {}]', "[" * 100_000, b"[\xff]"],
    ids=["open", "comma", "two", "deep", "utf8"],
)
async def test_a_body_that_is_not_a_json_array_is_refused(client: httpx.AsyncClient, body: str | bytes) -> None:
    response = await client.post("/v1/factory_logs", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert response.json()["message"].startswith("Unable to decode data")


@POSTS
async def test_an_element_that_is_not_an_object_is_a_bad_record(client: httpx.AsyncClient, post) -> None:
    response = await post(client, [LOG, 1, None, [LOG]])
    assert response.status_code == 400
    assert [error["index"] for error in response.json()["errors"]] == [1, 2, 3]


async def test_a_lone_surrogate_in_an_array_is_named(client: httpx.AsyncClient) -> None:
    body = '[{"app_name": "a", "timestamp": 1}, {"app_name": "a", "timestamp": 1, "tags": {"a": "\\ud800"}}]'
    response = await client.post("/v1/factory_logs", content=body, headers={"Content-Type": "application/json"})
    (error,) = response.json()["errors"]
    assert (response.status_code, error["index"], error["field"]) == (400, 1, "tags.a")


@pytest.mark.parametrize("name", ["created_by", "factory_log_id", "modified_at"])
async def test_a_lone_surrogate_in_ignored_metadata_is_an_error_in_each_kind_of_write(
    client: httpx.AsyncClient, name: str
) -> None:
    log = f'{{"app_name": "a", "timestamp": 1, "{name}": "\\ud800"}}'
    json_type = {"Content-Type": "application/json"}
    for content, headers in ((log, json_type), (f"[{log}]", json_type), (log, NDJSON)):
        response = await client.post("/v1/factory_logs", content=content, headers=headers)
        assert response.status_code == 400, content
        (error,) = response.json()["errors"]
        assert error["field"] == name
        assert "lone surrogate" in error["message"]


async def test_ndjson_may_have_blank_lines_carriage_returns_and_no_last_newline(client: httpx.AsyncClient) -> None:
    line = json.dumps(LOG).encode()
    body = b"\r\n" + line + b"\r\n  \n" + line
    response = await client.post("/v1/factory_logs", content=body, headers=NDJSON)
    assert response.json()["num_created"] == 2


async def test_ndjson_lines_may_arrive_in_any_pieces(client: httpx.AsyncClient) -> None:
    body = ndjson(numbered(20))

    async def bytewise():
        for start in range(0, len(body), 7):
            yield body[start : start + 7]

    response = await client.post("/v1/factory_logs", content=bytewise(), headers=NDJSON)
    assert response.json()["num_created"] == 20
    assert [log["fields"]["number"] for log in await stored(client)] == list(range(20))


async def test_a_line_that_is_too_long_fails_alone(database: Database, tokens, migrated_url: str) -> None:
    longest = 8 * 300
    good = json.dumps(LOG).encode()
    at_limit = good + b" " * (longest - len(good))
    async with (
        worker(migrated_url, max_record_bytes=300) as app,
        client_of(app, tokens[Level.SYSTEM]) as client,
    ):
        body = b"\n".join([good, at_limit, at_limit + b" ", good])
        response = await client.post("/v1/factory_logs?on_error=skip", content=body, headers=NDJSON)
    assert response.json()["num_created"] == 3
    assert [error["index"] for error in response.json()["errors"]] == [2]


class TestALongNdjsonBody:
    """A body longer than `batch_part_bytes` is stored in parts, in one transaction."""

    @pytest.fixture
    async def client(self, database: Database, tokens, migrated_url: str):
        async with (
            worker(migrated_url, batch_part_bytes=1000) as app,
            client_of(app, tokens[Level.SYSTEM]) as client,
        ):
            yield client
            assert app.state.services.bodies.held == 0

    async def sent(self, client: httpx.AsyncClient, records: list[object], **options: object) -> httpx.Response:
        async def pieces():
            for record in records:
                yield ndjson([record])

        headers = NDJSON | options.pop("headers", {})
        return await client.post("/v1/factory_logs", content=pieces(), headers=headers, **options)

    async def test_is_stored_in_the_order_of_the_input(self, client: httpx.AsyncClient) -> None:
        body = (await self.sent(client, numbered(90))).json()
        logs = await stored(client)
        assert [log["factory_log_id"] for log in logs] == body["ids"]
        assert [log["fields"]["number"] for log in logs] == list(range(90))

    async def test_is_all_or_nothing(self, client: httpx.AsyncClient) -> None:
        response = await self.sent(client, [*numbered(60), {"app_name": 1}, *numbered(60), LOG | {"repair_id": 5}])
        assert response.status_code == 400
        assert sorted({error["index"] for error in response.json()["errors"]}) == [60, 121]
        assert await stored(client) == []

    async def test_may_leave_out_bad_records(self, client: httpx.AsyncClient) -> None:
        records = [*numbered(30), {"app_name": 1}, *numbered(30), LOG | {"repair_id": 5}]
        response = await self.sent(client, records, params={"on_error": "skip"})
        assert (response.json()["num_created"], response.json()["num_rejected"]) == (60, 2)

    @pytest.mark.parametrize("unknown_repairs_at_a_time", [120, 25, 1])
    async def test_has_the_first_hundred_bad_records_of_all_its_parts_listed(
        self, client: httpx.AsyncClient, unknown_repairs_at_a_time: int
    ) -> None:
        """Invalid records and records that only the database rejects count together."""
        records = [
            {"app_name": 1} if number // unknown_repairs_at_a_time % 2 else LOG | {"repair_id": 5}
            for number in range(240)
        ]
        for params, status in (({}, 400), ({"on_error": "skip"}, 201)):
            response = await self.sent(client, [*records, *numbered(20)], params=params)
            body = response.json()
            assert response.status_code == status
            indexes = [error["index"] for error in body["errors"]]
            assert indexes == sorted(indexes)
            assert set(indexes) == set(range(100))
            assert body.get("num_rejected") == 240 or "failed for 240 of the records" in body["message"]

    async def test_is_stored_once_under_a_key(self, client: httpx.AsyncClient) -> None:
        key = {"Idempotency-Key": "upload-1"}
        first = await self.sent(client, numbered(60), headers=key)
        again = await self.sent(client, numbered(60), headers=key)
        other = await self.sent(client, numbered(61), headers=key)
        assert (again.status_code, again.content) == (201, first.content)
        assert again.headers["idempotency-replayed"] == "true"
        assert other.status_code == 409
        assert len(await stored(client)) == 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("gzip", gzip.compress), ("zstd", zstandard.compress), ("GZIP", gzip.compress), ("identity", bytes)],
)
@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", json.dumps(LOG).encode()),
        ("application/json", json.dumps([LOG]).encode()),
        ("application/x-ndjson", ndjson([LOG])),
    ],
    ids=["one", "array", "ndjson"],
)
async def test_a_body_may_be_compressed(
    client: httpx.AsyncClient, encoding: str, compress, content_type: str, body: bytes
) -> None:
    headers = {"Content-Type": content_type, "Content-Encoding": encoding}
    response = await client.post("/v1/factory_logs", content=compress(body), headers=headers)
    assert response.status_code == 201
    assert len(await stored(client)) == 1


async def test_an_unsupported_encoding_gets_a_415(client: httpx.AsyncClient) -> None:
    response = await client.post("/v1/factory_logs", json=LOG, headers={"Content-Encoding": "br"})
    assert response.status_code == 415
    assert "gzip" in response.json()["message"]


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
@pytest.mark.parametrize("spoil", [lambda body: body[:-3], lambda body: b"no" + body], ids=["cut", "broken"])
async def test_a_damaged_compressed_body_gets_a_400(client: httpx.AsyncClient, encoding: str, spoil) -> None:
    compress = {"gzip": gzip.compress, "zstd": zstandard.compress}[encoding]
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    body = compress(json.dumps([LOG] * 20).encode())
    response = await client.post("/v1/factory_logs", content=spoil(body), headers=headers)
    assert response.status_code == 400
    assert await stored(client) == []


class TestTheBodyLimit:
    LIMIT = 2000

    @pytest.fixture
    async def client(self, database: Database, tokens, migrated_url: str):
        async with (
            worker(migrated_url, max_body_bytes=self.LIMIT) as app,
            client_of(app, tokens[Level.SYSTEM]) as client,
        ):
            yield client
            assert app.state.services.bodies.held == 0

    def body(self, size: int) -> bytes:
        line = json.dumps(LOG).encode()
        return line + b" " * (size - len(line))

    @pytest.mark.parametrize("content_type", ["application/json", "application/x-ndjson"])
    @pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd"])
    async def test_holds_for_the_uncompressed_body(
        self, client: httpx.AsyncClient, content_type: str, encoding: str
    ) -> None:
        compress = {"identity": bytes, "gzip": gzip.compress, "zstd": zstandard.compress}[encoding]
        headers = {"Content-Type": content_type, "Content-Encoding": encoding}
        statuses = [
            (await client.post("/v1/factory_logs", content=compress(self.body(size)), headers=headers)).status_code
            for size in (self.LIMIT, self.LIMIT + 1)
        ]
        assert statuses == [201, 413]

    async def test_holds_for_a_body_of_unknown_length(self, client: httpx.AsyncClient) -> None:
        read = 0

        async def endless():
            nonlocal read
            while True:
                read += 100
                yield b"\n" * 100

        response = await client.post("/v1/factory_logs", content=endless(), headers=NDJSON)
        assert response.status_code == 413
        assert read <= self.LIMIT + 200

    async def test_holds_for_the_compressed_body(self, client: httpx.AsyncClient) -> None:
        """Empty members decompress to nothing, but their number must have a limit."""
        members = gzip.compress(b"") * 200

        async def chunked():
            yield members

        headers = NDJSON | {"Content-Encoding": "gzip"}
        response = await client.post("/v1/factory_logs", content=chunked(), headers=headers)
        assert response.status_code == 413


async def test_more_bodies_than_a_worker_can_hold_get_a_503(database: Database, tokens, migrated_url: str) -> None:
    body = json.dumps(LOG).encode()
    async with (
        worker(migrated_url, max_bodies_bytes=len(body)) as app,
        client_of(app, tokens[Level.SYSTEM]) as client,
    ):
        fits = await client.post("/v1/factory_logs", content=body, headers=NDJSON)
        too_many = await client.post("/v1/factory_logs", content=body + b" ", headers=NDJSON)
        assert (fits.status_code, too_many.status_code) == (201, 503)
        assert int(too_many.headers["retry-after"]) >= 1
        assert app.state.services.bodies.held == 0


async def test_a_body_that_stops_arriving_gets_a_408(database: Database, tokens, migrated_url: str) -> None:
    async with worker(migrated_url, body_idle_seconds=0.05) as app:
        status, _ = await raw_post(
            app, tokens[Level.SYSTEM], [{"type": "http.request", "body": b"{", "more_body": True}]
        )
    assert status == 408


async def raw_post(app, token: str, messages: list[dict[str, object]]) -> tuple[int, bytes]:
    """Return a request whose body is `messages`, after which nothing more arrives."""
    sent: list[dict[str, object]] = []
    waiting = iter(messages)

    async def receive() -> dict[str, object]:
        for message in waiting:
            return message
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/v1/factory_logs",
        "raw_path": b"/v1/factory_logs",
        "query_string": b"",
        "root_path": "",
        "headers": [
            (b"host", b"logs.test"),
            (b"authorization", f"Token token={token}".encode()),
            (b"content-type", b"application/json"),
        ],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]

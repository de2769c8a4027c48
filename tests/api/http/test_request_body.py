"""Limits of one body: its records, bad records and errors, and its compression."""

import gzip
import json
import os
from collections.abc import Callable

import httpx
import pytest
import zstandard

from factory_logs.api.http.content_coding import RATIO_FROM_BYTES
from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from factory_logs.schemas.factory_log import FactoryLogIn
from tests.api.conftest import client_of, worker

GOOD, BAD = '{"app_name": "a", "timestamp": 1}', "1"
Body = Callable[[list[str]], tuple[str, str, str]]


def array(records: list[str]) -> tuple[str, str, str]:
    return "/v1/factory_logs", "application/json", f"[{','.join(records)}]"


def ndjson(records: list[str]) -> tuple[str, str, str]:
    return "/v1/factory_logs", "application/x-ndjson", "".join(f"{record}\n" for record in records)


def ndjson_open(records: list[str]) -> tuple[str, str, str]:
    return "/v1/factory_logs", "application/x-ndjson", "\n".join(records)


def line_protocol(records: list[str]) -> tuple[str, str, str]:
    return "/write?db=x", "text/plain", "".join(f"{LINES[record]}\n" for record in records)


def line_protocol_open(records: list[str]) -> tuple[str, str, str]:
    return "/api/v2/write?bucket=x", "text/plain", "\n".join(LINES[record] for record in records)


LINES = {GOOD: "a f=1 1000", BAD: "1"}
BODIES = pytest.mark.parametrize("body", [array, ndjson, ndjson_open, line_protocol, line_protocol_open])
PACKERS = {"gzip": gzip.compress, "zstd": zstandard.compress}
PACKED = pytest.mark.parametrize("packing", PACKERS)


@pytest.fixture
async def client(database: Database, tokens: dict[Level, str], migrated_url: str):
    limits = {
        "max_body_records": 20, "max_bad_records": 5, "max_reported_errors": 3, "max_compressed_members": 4,
        "max_compression_ratio": 50,
    }  # fmt: skip
    async with worker(migrated_url, **limits) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        yield client
        assert app.state.services.bodies.held == 0


async def post(client: httpx.AsyncClient, body: Body, records: list[str], **params: str) -> httpx.Response:
    path, content_type, content = body(records)
    return await client.post(path, content=content, headers={"Content-Type": content_type}, params=params or None)


async def number_stored(client: httpx.AsyncClient) -> int:
    number: int = (await client.get("/v1/factory_logs")).json()["num_results"]
    return number


@pytest.mark.slow
@BODIES
async def test_a_body_at_the_limit_of_records_is_stored_and_one_record_more_gets_a_413(
    client: httpx.AsyncClient, body: Body
) -> None:
    too_many = await post(client, body, [GOOD] * 21)
    assert too_many.status_code == 413
    assert "more than 20 records" in too_many.text
    assert await number_stored(client) == 0
    assert (await post(client, body, [GOOD] * 20)).status_code in (201, 204)
    assert await number_stored(client) == 20


@pytest.mark.parametrize("path", ["/write?db=x", "/api/v2/write?bucket=x", "/v1/factory_logs"])
@pytest.mark.parametrize("line", ["", "  ", "# a comment"])
async def test_lines_that_are_not_records_count_as_well(client: httpx.AsyncClient, path: str, line: str) -> None:
    response = await client.post(path, content=f"{line}\n" * 21, headers={"Content-Type": "application/x-ndjson"})
    assert response.status_code == 413


@pytest.mark.slow
@BODIES
async def test_one_bad_record_over_the_limit_refuses_the_whole_body(client: httpx.AsyncClient, body: Body) -> None:
    params = {"on_error": "skip"} if body(["1"])[0] == "/v1/factory_logs" else {}
    path = body([GOOD])[0]
    records = [GOOD, *[BAD] * 5, GOOD]
    at_the_limit = await client.post(path, **sent(body, records), params=params or None)
    assert at_the_limit.status_code == (201 if params else 400)
    assert await number_stored(client) == 2
    over_it = await client.post(path, **sent(body, [*records, BAD]), params=params or None)
    assert over_it.status_code == 400
    assert "more than 5 of the records" in over_it.text
    assert await number_stored(client) == 2
    if params:
        assert {error["index"] for error in over_it.json()["errors"]} == {1, 2, 3}
    else:
        assert "line 2: unable to parse '1': missing fields" in over_it.text


def sent(body: Body, records: list[str]) -> dict[str, object]:
    _, content_type, content = body(records)
    return {"content": content, "headers": {"Content-Type": content_type}}


@pytest.mark.parametrize("wrap", [str, "[{}]".format])
async def test_of_one_record_only_the_first_errors_are_listed(client: httpx.AsyncClient, wrap) -> None:
    names = {f"unknown_{number}": 1 for number in range(1000)}
    unknown = json.dumps(names | {"app_name": "a", "timestamp": 1})
    unstorable = json.dumps({"app_name": "a", "timestamp": 1, "tags": ["\0"] * 1000})
    surrogates = json.dumps({"app_name": "a", "timestamp": 1, "tags": ["\ud800"] * 1000})
    for record, most in ((unknown, 3 + len(FactoryLogIn.model_fields)), (unstorable, 3), (surrogates, 3)):
        response = await client.post(
            "/v1/factory_logs", content=wrap(record), headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 400
        assert 3 <= len(response.json()["errors"]) <= most


@PACKED
@pytest.mark.parametrize(("members", "status"), [(4, 201), (5, 413)])
async def test_a_compressed_body_has_a_limited_number_of_members(
    client: httpx.AsyncClient, packing: str, members: int, status: int
) -> None:
    empty = PACKERS[packing](b"")
    headers = {"Content-Type": "application/x-ndjson", "Content-Encoding": packing}
    body = PACKERS[packing](GOOD.encode()) + empty * (members - 1)
    assert (await client.post("/v1/factory_logs", content=body, headers=headers)).status_code == status


@PACKED
async def test_a_compressed_body_has_a_limited_ratio(client: httpx.AsyncClient, packing: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": packing}
    small = GOOD.encode() + b" " * (RATIO_FROM_BYTES - len(GOOD))
    noise = os.urandom(RATIO_FROM_BYTES // 40).hex().encode()
    within = b'{"app_name": "a", "timestamp": 1, "created_by": "%b"}' % noise + b" " * RATIO_FROM_BYTES
    for body, status in ((small, 201), (within, 201), (small + b" ", 413)):
        packed = PACKERS[packing](body)
        response = await client.post("/v1/factory_logs", content=packed, headers=headers)
        assert (response.status_code, len(body)) == (status, len(body)), response.text

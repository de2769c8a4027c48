"""InfluxDB's write calls, each with the responses of its version (docs/reference/http-api.md#influxdbs-calls)."""

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest
import zstandard
from fastapi import FastAPI

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker

POINT = "tiger,jig_id=J-07,product_imei=352099001761481 passed=true,voltage=3.28 1706708700123456789"
V1, V2 = "/write?db=jigs", "/api/v2/write?bucket=jigs&org=factory"
BOTH = pytest.mark.parametrize("url", [V1, V2])


async def write(client: httpx.AsyncClient, url: str, *lines: str, **options: object) -> httpx.Response:
    return await client.post(url, content="\n".join(lines).encode(), **options)  # type: ignore[arg-type]


async def stored(client: httpx.AsyncClient) -> list[dict[str, object]]:
    response = await client.get("/v1/factory_logs", params={"results_per_page": 100})
    objects: list[dict[str, object]] = response.json()["objects"]
    return objects


def reported(response: httpx.Response) -> str:
    assert response.status_code >= 400
    body = response.json()
    text = body["error"] if response.url.path == "/write" else body["message"]
    assert isinstance(text, str)
    assert response.headers["X-Influxdb-Error"][:20] == " ".join(text.split())[:20]
    assert "X-Influxdb-Version" in response.headers
    return text


@BOTH
async def test_a_point_becomes_a_log(client: httpx.AsyncClient, url: str) -> None:
    response = await write(client, url, POINT)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["X-Influxdb-Version"] == "1.8.10"
    (log,) = await stored(client)
    assert {name: log[name] for name in ("app_name", "product_imei", "timestamp", "tags", "fields", "created_by")} == {
        "app_name": "tiger", "product_imei": "352099001761481", "timestamp": "2024-01-31 13:45:00.123456",
        "tags": {"jig_id": "J-07"}, "fields": {"passed": True, "voltage": 3.28}, "created_by": "system",
    }  # fmt: skip


@pytest.mark.slow
@BOTH
async def test_a_body_of_unknown_length_is_read_the_same(client: httpx.AsyncClient, url: str) -> None:
    async def pieces(*lines: str) -> AsyncIterator[bytes]:
        for line in lines:
            yield line[:9].encode()
            yield f"{line[9:]}\n".encode()

    for lines in ([POINT], [POINT, "tiger f="]):
        whole = await write(client, url, *lines)
        arriving = await client.post(url, content=pieces(*lines))
        assert (arriving.status_code, arriving.content) == (whole.status_code, whole.content)
    assert [log["tags"] for log in await stored(client)] == [{"jig_id": "J-07"}] * 4


async def test_a_long_query_string_is_read_the_same(client: httpx.AsyncClient) -> None:
    for name in ("short", "long" * 100):
        assert (await client.post(f"/write?precision=s&db={name}", content="m f=1 60")).status_code == 204
    assert [log["timestamp"] for log in await stored(client)] == ["1970-01-01 00:01:00"] * 2


@pytest.mark.slow
@BOTH
async def test_the_good_lines_are_stored_and_the_bad_ones_listed(client: httpx.AsyncClient, url: str) -> None:
    response = await write(
        client, url, POINT, "# a comment", "tiger f=", "tiger,product_imei=12 f=1", "koala,repair_id=9 f=1",
        'koala s="\n"',
    )  # fmt: skip
    assert response.status_code == 400
    assert reported(response) == (
        "partial write: line 3: unable to parse 'tiger f=': missing field value\n"
        "line 4: product_imei: expected a tag of exactly 15 digits\n"
        "line 5: repair_id: there is no repair 9 dropped=3"
    )
    assert [log["app_name"] for log in await stored(client)] == ["tiger", "koala"]


async def test_the_second_version_names_the_first_bad_line(client: httpx.AsyncClient) -> None:
    response = await write(client, V2, POINT, "tiger f=", "koala")
    assert (response.json()["code"], response.json()["line"]) == ("invalid", 2)


@pytest.mark.slow
@BOTH
async def test_a_single_bad_point_is_an_error(client: httpx.AsyncClient, url: str) -> None:
    for line, message in [
        ("tiger f=", "line 1: unable to parse 'tiger f=': missing field value"),
        ("tiger,repair_id=9 f=1", "partial write: line 1: repair_id: there is no repair 9 dropped=1"),
        ("tiger repair_id=9i", "partial write: line 1: fields.repair_id: a field may not have the name of a column"),
    ]:
        response = await write(client, url, line)
        assert (response.status_code, reported(response)[: len(message)]) == (400, message)
    assert await stored(client) == []


async def test_unknown_repairs_in_many_lines_of_one_form_are_listed(client: httpx.AsyncClient) -> None:
    repair = (await client.post("/v1/repairs", json={"product_imei": "352099001761481"})).json()["repair_id"]
    unknown = [2**31, 10**18 - 1]
    lines = [f"m,repair_id={unknown[n % 2] if n % 3 else repair} f={n} {n}000" for n in range(30)]
    response = await write(client, V1, *lines)
    listed = [line.split(": ")[:3] for line in reported(response).removeprefix("partial write: ").splitlines()]
    assert [(line, message.split()[4]) for line, _, message in listed] == [
        (f"line {n + 1}", str(unknown[n % 2])) for n in range(30) if n % 3
    ]
    assert [log["fields"] for log in await stored(client)] == [{"f": float(n)} for n in range(0, 30, 3)]


async def test_no_more_bad_lines_are_listed_than_the_limit(database: Database, migrated_url: str, tokens) -> None:
    async with worker(migrated_url, max_reported_errors=2) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        response = await write(client, V1, POINT, *["m f="] * 5, "m,repair_id=9 f=1")
    assert reported(response).splitlines()[-1] == "and 4 more dropped=6"
    assert len(reported(response).splitlines()) == 3


async def test_the_limit_of_listed_lines_holds_for_all_parts(database: Database, migrated_url: str, tokens) -> None:
    lines = [*["m,repair_id=9 f=1"] * 10, *["m f="] * 10]

    async def pieces() -> AsyncIterator[bytes]:
        for line in lines:
            yield f"{line}\n".encode()

    async with (
        worker(migrated_url, max_reported_errors=10, batch_part_bytes=30) as app,
        client_of(app, tokens[Level.SYSTEM]) as client,
    ):
        response = await client.post(V1, content=pieces())
    *listed, rest = reported(response).removeprefix("partial write: ").splitlines()
    assert listed == [f"line {number}: repair_id: there is no repair 9" for number in range(1, 11)]
    assert rest == "and 10 more dropped=20"


@BOTH
async def test_the_tag_repair_id_is_stored_in_its_column(client: httpx.AsyncClient, url: str) -> None:
    repair = (await client.post("/v1/repairs", json={"product_imei": "352099001761481"})).json()["repair_id"]
    for lines in ([f"tiger,repair_id={repair} f=1"], [f"tiger,repair_id={repair} f=1", "koala f=1"]):
        assert (await write(client, url, *lines)).status_code == 204
    assert [log["repair_id"] for log in await stored(client)] == [repair, repair, None]


async def test_the_precision_is_the_unit_of_the_times(client: httpx.AsyncClient) -> None:
    units = {"n": 10**9, "ns": 10**9, "u": 10**6, "us": 10**6, "µ": 10**6, "µs": 10**6, "ms": 10**3, "s": 1}
    for precision, second in units.items():
        for path in ("/write", "/api/v2/write"):
            params = {"db": "x", "bucket": "x", "precision": precision}
            assert (await client.post(path, params=params, content=f"m f=1 {60 * second}")).status_code == 204
    for precision, minute in {"m": "1", "h": "-1"}.items():
        params = {"db": "x", "precision": precision}
        assert (await client.post("/write", params=params, content=f"m f=1 {minute}")).status_code == 204
    times = [log["timestamp"] for log in await stored(client)]
    assert times == ["1970-01-01 00:01:00"] * 17 + ["1969-12-31 23:00:00"]


@BOTH
async def test_a_point_without_a_time_gets_the_current_time(client: httpx.AsyncClient, url: str) -> None:
    assert (await write(client, url, "m f=1")).status_code == 204
    (log,) = await stored(client)
    happened, created = (datetime.fromisoformat(str(log[name])) for name in ("timestamp", "created_at"))
    assert abs((created - happened).total_seconds()) < 60


async def test_invalid_parameters_are_errors(client: httpx.AsyncClient) -> None:
    for url, status, message in [
        ("/write", 400, "database is required"),
        ("/write?db=", 400, "database is required"),
        ("/write?db=x&precision=d", 400, "invalid precision 'd'"),
        ("/api/v2/write", 404, "bucket not found"),
        ("/api/v2/write?bucket=x&precision=d", 400, "invalid precision 'd'"),
        ("/write?" + "db=x&" * 100, 400, "there are more than 50 query parameters"),
    ]:
        response = await write(client, url, POINT)
        assert (response.status_code, reported(response)[: len(message)]) == (status, message)


async def test_an_empty_body_is_accepted_in_version_1_and_an_error_in_version_2(client: httpx.AsyncClient) -> None:
    assert (await write(client, V1)).status_code == 204
    assert reported(await write(client, V2)) == "writing requires points"
    assert (await write(client, V2, "# only a comment")).status_code == 204


@pytest.mark.slow
@BOTH
async def test_a_body_may_be_compressed(client: httpx.AsyncClient, url: str) -> None:
    for encoding, pack in {"gzip": gzip.compress, "zstd": zstandard.compress, "identity": bytes}.items():
        body = pack(f"m,encoding={encoding} n=0i 0\nm,encoding={encoding} n=1i 1".encode())
        response = await client.post(url, content=body, headers={"Content-Encoding": encoding})
        assert response.status_code == 204
    assert [log["tags"] for log in await stored(client)] == [
        {"encoding": encoding} for encoding in ("gzip", "gzip", "zstd", "zstd", "identity", "identity")
    ]


@BOTH
async def test_a_damaged_body_or_an_unknown_encoding_is_an_error(client: httpx.AsyncClient, url: str) -> None:
    broken = await write(client, url, POINT, headers={"Content-Encoding": "gzip"})
    assert (broken.status_code, "not valid gzip" in reported(broken)) == (400, True)
    unknown = await write(client, url, POINT, headers={"Content-Encoding": "br"})
    assert (unknown.status_code, "identity, gzip, zstd" in reported(unknown)) == (415, True)


@BOTH
async def test_a_body_over_the_limit_stores_nothing(database: Database, migrated_url: str, tokens, url: str) -> None:
    async with worker(migrated_url, max_body_bytes=200) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        assert (await client.post(url, content=b"m f=1 1".ljust(200))).status_code == 204
        for body, headers in (
            (b"m f=1 1".ljust(201), {}),
            (gzip.compress(b"m f=1 1\n" * 10_000), {"Content-Encoding": "gzip"}),
        ):
            response = await client.post(url, content=body, headers=headers)
            assert (response.status_code, "over the limit of 200 bytes" in reported(response)) == (413, True)
            assert response.json().get("code", "request too large") == "request too large"
        assert len(await stored(client)) == 1


@pytest.mark.slow
@BOTH
async def test_a_long_body_is_stored_in_parts_and_whole_or_not_at_all(
    database: Database, migrated_url: str, tokens, url: str
) -> None:
    async with worker(migrated_url, batch_part_bytes=1000) as app, client_of(app, tokens[Level.SYSTEM]) as client:
        lines = [f"m,a=b n={n}i {n}" for n in range(2000)]
        lines[1500] = "m"

        async def pieces() -> AsyncIterator[bytes]:
            text = "\n".join(lines).encode()
            for start in range(0, len(text), 777):
                yield text[start : start + 777]

        response = await client.post(url, content=pieces())
        assert "line 1501: unable to parse 'm': missing fields" in reported(response)
        logs = await client.get("/v1/factory_logs", params={"results_per_page": 1})
        assert logs.json()["num_results"] == 1999
        again = await client.post(url, content=pieces())
        assert (again.status_code, again.headers["Idempotency-Replayed"]) == (400, "true")
        assert (await client.get("/v1/factory_logs")).json()["num_results"] == 1999
        export = await client.get("/v1/factory_logs", headers={"Accept": "application/x-ndjson"})
        by_id = sorted((log["factory_log_id"], log["fields"]["n"]) for log in map(json.loads, export.text.splitlines()))
        assert [n for _, n in by_id] == [n for n in range(2000) if n != 1500]


async def test_invalid_utf8_rejects_only_its_line(client: httpx.AsyncClient) -> None:
    response = await client.post(V1, content=b'm f="\xff" 1\nm f="\xc3\xa9" 2\nm f="\0" 3')
    assert reported(response) == (
        "partial write: line 1: the line is not UTF-8\nline 3: the NUL character cannot be stored dropped=2"
    )
    assert [log["fields"] for log in await stored(client)] == [{"f": "é"}]


# Sending again


@BOTH
async def test_a_retried_write_is_stored_once(client: httpx.AsyncClient, url: str) -> None:
    """InfluxDB's clients retry a write if the response is late, because in InfluxDB a point overwrites itself."""
    for replayed in (None, "true"):
        response = await write(client, url, "m f=1 1", "m f=2 2")
        assert (response.status_code, response.headers.get("Idempotency-Replayed")) == (204, replayed)
    assert len(await stored(client)) == 2


async def test_lines_of_the_same_series_and_time_are_separate_logs(client: httpx.AsyncClient) -> None:
    """InfluxDB would store them as one point; Factory Logs overwrites nothing."""
    assert (await write(client, V1, "m,a=b f=1 5", "m,a=b f=1 5", "m,a=b f=2,g=3 5")).status_code == 204
    assert [log["fields"] for log in await stored(client)] == [{"f": 1.0}, {"f": 1.0}, {"f": 2.0, "g": 3.0}]


async def test_a_different_write_is_stored_again(client: httpx.AsyncClient) -> None:
    await write(client, V1, "m f=1 1", "m f=2 2")
    await write(client, V1 + "2", "m f=1 1", "m f=2 2")  # another database
    await write(client, V1 + "&precision=s", "m f=1 1", "m f=2 2")
    assert len(await stored(client)) == 6
    for _ in range(2):
        await write(client, V1, "m f=1", "m f=2")  # happens now, each time
    assert len(await stored(client)) == 10


@pytest.mark.slow
@BOTH
async def test_an_idempotency_key_works_here_too(client: httpx.AsyncClient, url: str) -> None:
    for key, lines in {"a": ["m f=1 1"], "b": ["m f=1 1", "m f=2"], "c": ["m f=1 1", "m f=2 2", "bad"]}.items():
        before = len(await stored(client))
        headers = {"Idempotency-Key": key}
        first = await write(client, url, *lines, headers=headers)
        again = await write(client, url, *lines, headers=headers)
        assert (again.status_code, again.content) == (first.status_code, first.content)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert len(await stored(client)) == before + min(len(lines), 2)
        other = await write(client, url, "m f=3 3", headers=headers)
        assert (other.status_code, "already used" in reported(other)) == (409, True)
    assert (await write(client, url, "m f=3 3", headers={"Idempotency-Key": "k" * 256})).status_code == 400


async def test_the_same_write_at_the_same_time_is_stored_once(client: httpx.AsyncClient) -> None:
    responses = await asyncio.gather(*(write(client, V1, "m f=1 1", "m f=2 2") for _ in range(8)))
    assert {response.status_code for response in responses} == {204}
    assert len(await stored(client)) == 2


# Who writes


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@BOTH
async def test_the_token_is_accepted_in_each_form(
    anonymous: httpx.AsyncClient, tokens: dict[Level, str], url: str
) -> None:
    token = tokens[Level.SYSTEM]
    for header in (
        f"Token {token}", f"token {token}", f"Token token={token}", f'Token token="{token}"', f"Token jig:{token}",
        f"Bearer {token}", token, basic("jig", token), basic("", token),
    ):  # fmt: skip
        response = await write(anonymous, url, POINT, headers={"Authorization": header})
        assert response.status_code == 204, header.replace(token, "...")
    assert (await write(anonymous, f"{url}&u=jig&p={token}", POINT)).status_code == 204
    assert (await write(anonymous, f"{url}&p={token}", POINT, headers={"Authorization": "x"})).status_code == 204


@BOTH
async def test_a_wrong_or_missing_token_gets_a_401(
    anonymous: httpx.AsyncClient, tokens: dict[Level, str], url: str
) -> None:
    wrong = "x" * 64
    for header in (
        None,
        f"Token {wrong}",
        "Token",
        "x",
        basic("jig", wrong),
        "Basic !!!",
        "Basic /w==",
        f"Bearer {wrong}",
    ):
        response = await write(anonymous, url, POINT, headers={} if header is None else {"Authorization": header})
        assert response.status_code == 401, header
        assert response.headers["WWW-Authenticate"].partition(" ")[0] == ("Basic" if url == V1 else "Token")
        assert response.json().get("code", "unauthorized") == "unauthorized"
        assert reported(response)
    assert (await write(anonymous, f"{url}&u=jig&p={wrong}", POINT)).status_code == 401


@BOTH
async def test_only_a_user_who_may_write_can_store_points(app: FastAPI, tokens: dict[Level, str], url: str) -> None:
    async with client_of(app, tokens[Level.FACTORY]) as client:
        response = await write(client, url, POINT)
        assert (response.status_code, "needs the permission SYSTEM" in reported(response)) == (403, True)
        assert response.json().get("code", "forbidden") == "forbidden"


@BOTH
async def test_an_overloaded_service_gets_a_503(database: Database, migrated_url: str, tokens, url: str) -> None:
    async with (
        worker(migrated_url, max_queued_logs=1, max_queued_bytes=1, max_bodies_bytes=50) as app,
        client_of(app, tokens[Level.SYSTEM]) as client,
    ):
        for lines in (["m f=1 1"], ["m f=1 1"] * 100):
            response = await write(client, url, *lines)
            assert (response.status_code, response.headers["Retry-After"]) == (503, "1")
            assert response.json().get("code", "unavailable") == "unavailable"
            assert reported(response)


async def test_the_query_string_is_not_logged(
    database: Database, migrated_url: str, tokens: dict[Level, str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    async with worker(migrated_url) as app, client_of(app, None) as client:
        await write(client, f"{V1}&u=jig&p={tokens[Level.SYSTEM]}", POINT)
        await write(client, f"{V1}&u=jig&p=wrong-token", POINT)
    printed = b"".join(capfdbinary.readouterr())
    assert printed.count(b"/write") == 2
    assert tokens[Level.SYSTEM].encode() not in printed
    assert b"wrong-token" not in printed


# Other calls of clients


async def test_ping_needs_no_token(anonymous: httpx.AsyncClient) -> None:
    for method in ("GET", "HEAD"):
        response = await anonymous.request(method, "/ping")
        assert (response.status_code, response.content, response.headers["X-Influxdb-Version"]) == (204, b"", "1.8.10")


async def test_a_verbose_ping_returns_the_version(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.get("/ping?verbose=true")
    assert (response.status_code, response.json()) == (200, {"version": "1.8.10"})


async def test_health_has_the_format_of_influxdb(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.get("/health")
    assert response.status_code == 200
    assert response.json() == {
        "name": "influxdb", "message": "ready for queries and writes", "status": "pass", "checks": [],
        "version": "1.8.10",
    }  # fmt: skip


async def test_health_fails_without_the_database(database: Database) -> None:
    async with worker("postgresql://nobody@127.0.0.1:1/none") as app, client_of(app, None) as client:
        response = await client.get("/health")
        assert (response.status_code, response.json()["status"]) == (503, "fail")
        written = await write(client, V1, POINT, headers={"Authorization": "Token " + "x" * 64})
        assert (written.status_code, "cannot be reached" in reported(written)) == (503, True)


async def test_create_and_show_databases_respond_like_influxdb(client: httpx.AsyncClient) -> None:
    for method in ("GET", "POST"):
        created = await client.request(method, "/query", params={"q": 'CREATE DATABASE "jigs"'})
        assert (created.status_code, created.json()) == (200, {"results": [{"statement_id": 0}]})
        shown = await client.request(method, "/query", params={"q": "show databases"})
        assert shown.json()["results"][0]["series"][0]["values"] == [["factory_logs"]]


async def test_a_query_needs_a_token(anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.get("/query", params={"q": "SHOW DATABASES"})).status_code == 401


async def test_telegraf_1_writes_are_stored(anonymous: httpx.AsyncClient, tokens: dict[Level, str]) -> None:
    """outputs.influxdb: a form to /query at start, then compressed batches. 204 accepts, any 4xx drops and a 5xx keeps
    the batch."""
    headers = {"Authorization": basic("telegraf", tokens[Level.SYSTEM]), "User-Agent": "Telegraf/1.30.0 Go/1.22.2"}
    created = await anonymous.post("/query", data={"q": 'CREATE DATABASE "telegraf"'}, headers=headers)
    assert (created.status_code, created.json()["results"][0].get("error")) == (200, None)
    packed = headers | {"Content-Type": "text/plain; charset=utf-8", "Content-Encoding": "gzip"}
    url, body = "/write?consistency=any&db=telegraf&rp=autogen", b"cpu,host=a usage=1.5 1706708700000000000\n"
    accepted = await anonymous.post(url, content=gzip.compress(body * 2), headers=packed)
    assert accepted.status_code == 204
    partial = await anonymous.post(url, content=gzip.compress(body + b"cpu usage=\n"), headers=packed)
    assert partial.status_code == 400
    assert partial.json()["error"].startswith("partial write: ")
    assert "database not found" not in partial.json()["error"]  # it would create one and send all again


async def test_telegraf_2_writes_are_stored(anonymous: httpx.AsyncClient, tokens: dict[Level, str]) -> None:
    """outputs.influxdb_v2: splits a body that is too large; 401 and 403 keep the batch, 400 drops it."""
    headers = {
        "Authorization": f"Token {tokens[Level.SYSTEM]}", "Content-Type": "text/plain; charset=utf-8",
        "Content-Encoding": "gzip", "User-Agent": "Telegraf/1.30.0 Go/1.22.2",
    }  # fmt: skip
    body = gzip.compress(b"cpu,host=a usage=1.5 1706708700000000000\n" * 2)
    response = await anonymous.post("/api/v2/write?bucket=telegraf&org=factory", content=body, headers=headers)
    assert response.status_code == 204

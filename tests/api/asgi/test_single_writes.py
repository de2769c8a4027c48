"""A single write that needs no task has the same response as the same request to the route's endpoint."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from factory_logs import metrics
from factory_logs.api.asgi.single_writes import LARGEST_BODY, Head
from factory_logs.api.http.exchange import Exchange
from factory_logs.api.routes import logs
from factory_logs.db.engine import Database
from factory_logs.permissions import CurrentUser, Level
from tests.api.asgi.workers import POINT, Worker, served
from tests.api.conftest import worker
from tests.factories import LOG
from tests.locking import locked

MANY_LINES = POINT + b"\n" + POINT


@pytest.fixture
async def on_port(app: FastAPI, tokens: dict[Level, str], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    async with served(app, tokens[Level.SYSTEM], monkeypatch) as worker:
        yield worker


CALLS = {
    "log": ("/v1/factory_logs", json.dumps(LOG).encode(), {"Content-Type": "application/json"}),
    "point": ("/write?db=jigs", POINT, {}),
    "point with a line end": ("/write?db=jigs&precision=ns", POINT + b"\n", {}),
    "point of version 2": ("/api/v2/write?bucket=jigs&org=x", POINT, {}),
    "point without a time": ("/write?db=jigs", b"m f=1", {}),
}
OWN = ("x-request-id", "location", "content-length", "date")


def headers_of(response: httpx.Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in response.headers.multi_items() if name not in OWN]


def body_of(response: httpx.Response) -> Any:
    own = ("factory_log_id", "created_at", "request_id")
    return response.content and {name: v for name, v in response.json().items() if name not in own}


def assert_same(first: httpx.Response, second: httpx.Response, status: int) -> None:
    assert (first.status_code, second.status_code) == (status, status), first.text
    assert headers_of(first) == headers_of(second)
    assert body_of(first) == body_of(second)


@pytest.mark.parametrize("call", CALLS)
async def test_the_response_is_that_of_the_endpoint(on_port: Worker, call: str) -> None:
    url, body, headers = CALLS[call]
    first, second = await on_port.both(url, body, **headers, **{"X-Request-ID": "given-1"})
    assert_same(first, second, 201 if call == "log" else 204)
    assert first.headers["x-request-id"] == second.headers["x-request-id"] == "given-1"
    stored = (await on_port.client.get("/v1/factory_logs")).json()["objects"]
    assert len(stored) == 2
    assert body_of_record(stored[0]) == body_of_record(stored[1])
    if call == "log":
        assert (
            first.headers["location"] == f"{on_port.client.base_url}/v1/factory_logs/{first.json()['factory_log_id']}"
        )
        assert first.json() in stored


def body_of_record(record: dict[str, Any]) -> dict[str, Any]:
    return {name: record[name] for name in ("app_name", "product_imei", "tags", "fields", "created_by")}


async def test_the_request_is_counted_and_logged(on_port: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[dict[str, Any]] = []
    monkeypatch.setattr(on_port.app.state.access_log, "write", lambda **line: lines.append(line))
    counted = metrics.REQUESTS.labels("POST", "/v1/factory_logs", "201")
    before = counted._value.get()
    url, body, headers = CALLS["log"]
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    first, second = await on_port.both(url, body, **headers, traceparent=trace)
    assert counted._value.get() == before + 2
    assert [line["request_id"] for line in lines] == [each.headers["x-request-id"] for each in (first, second)]
    for line in lines:
        del line["request_id"], line["seconds"]
    assert lines[0] == lines[1]
    assert (lines[0]["user"], lines[0]["trace_id"]) == ("system", trace[3:35])


JSON = {"Content-Type": "application/json"}
NO_REPAIR = {
    "log": ("/v1/factory_logs", json.dumps(LOG | {"repair_id": 999}).encode(), JSON),
    "point": ("/write?db=jigs", b"m,repair_id=999 f=1", {}),
    "point of version 2": ("/api/v2/write?bucket=jigs", b"m,repair_id=999 f=1", {}),
}


@pytest.mark.parametrize("call", NO_REPAIR)
async def test_an_error_of_the_commit_is_that_of_the_endpoint(on_port: Worker, call: str) -> None:
    url, body, headers = NO_REPAIR[call]
    assert_same(*await on_port.both(url, body, **headers), 400)


@pytest.mark.parametrize("call", CALLS)
async def test_a_refused_log_gets_the_error_of_the_endpoint(
    on_port: Worker, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, body, headers = CALLS[call]
    monkeypatch.setattr(on_port.services.disk, "is_low", True)
    assert_same(*await on_port.both(url, body, **headers), 503)


LOG_TEXT = json.dumps(LOG)
LEFT_TO_THE_ENDPOINT = {
    "bad JSON": ("/v1/factory_logs", b"{", JSON, 400),
    "bad log": ("/v1/factory_logs", b"{}", JSON, 400),
    "no JSON": ("/v1/factory_logs", LOG_TEXT.encode(), {"Content-Type": "text/plain"}, 415),
    "batch": ("/v1/factory_logs", f"[{LOG_TEXT}]".encode(), JSON, 201),
    "NDJSON": ("/v1/factory_logs", LOG_TEXT.encode(), {"Content-Type": "application/x-ndjson"}, 201),
    "bad parameter": ("/v1/factory_logs?on_error=x", LOG_TEXT.encode(), JSON, 400),
    "bad key": ("/v1/factory_logs", LOG_TEXT.encode(), JSON | {"Idempotency-Key": "é"}, 400),
    "encoding": ("/v1/factory_logs", LOG_TEXT.encode(), JSON | {"Content-Encoding": "x"}, 415),
    "large log": ("/v1/factory_logs", json.dumps(LOG | {"fields": "x" * LARGEST_BODY}).encode(), JSON, 201),
    "bad token": ("/v1/factory_logs", LOG_TEXT.encode(), JSON | {"Authorization": "Token token=x"}, 401),
    "many lines": ("/write?db=jigs", MANY_LINES, {}, 204),
    "comment": ("/write?db=jigs", b"# m f=1", {}, 204),
    "no line": ("/write?db=jigs", b"", {}, 204),
    "line end in a string": ("/write?db=jigs", b'm f="a\nb"', {}, 204),
    "open string": ("/write?db=jigs", b'm f="a\n', {}, 400),
    "bad line": ("/write?db=jigs", b"m f=", {}, 400),
    "bad UTF-8": ("/write?db=jigs", b"m f=\xff", {}, 400),
    "no database": ("/write", POINT, {}, 400),
    "bad unit": ("/write?db=jigs&precision=x", POINT, {}, 400),
    "other token": ("/write?db=jigs&p=x", POINT, {}, 401),
    "no bucket": ("/api/v2/write", POINT, {}, 404),
}


@pytest.mark.parametrize("call", LEFT_TO_THE_ENDPOINT)
async def test_any_other_request_is_left_to_the_endpoint(on_port: Worker, call: str) -> None:
    url, body, headers, status = LEFT_TO_THE_ENDPOINT[call]
    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    response = await on_port.client.post(url, content=body, headers=raw)
    assert (response.status_code, on_port.without_task) == (status, [False]), response.text


async def test_a_body_over_the_limit_is_left_to_the_endpoint(
    database: Database, migrated_url: str, tokens: dict[Level, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, body, headers = CALLS["log"]
    async with (
        worker(migrated_url, max_body_bytes=len(body)) as app,
        served(app, tokens[Level.SYSTEM], monkeypatch) as on_port,
    ):
        assert (await on_port.client.post(url, content=body, headers=headers)).status_code == 201
        response = await on_port.client.post(url, content=body + b" ", headers=headers)
    assert (response.status_code, on_port.without_task) == (413, [True, False])


@pytest.mark.parametrize("call", CALLS)
async def test_a_user_who_may_not_store_gets_the_error_of_the_endpoint(
    on_port: Worker, tokens: dict[Level, str], call: str
) -> None:
    url, body, headers = CALLS[call]
    forbidden = headers | {"Authorization": f"Token token={tokens[Level.FACTORY]}"}
    for _ in range(2):  # at first, the token is not cached
        assert (await on_port.client.post(url, content=body, headers=forbidden)).status_code == 403
    assert on_port.without_task == [False, False]


async def test_the_head_and_the_body_may_arrive_apart(on_port: Worker) -> None:
    def last_uses() -> list[float]:
        return [use.at for use in on_port.services.authenticator._uses.values()]

    before = last_uses()
    reader, writer = await asyncio.open_connection("127.0.0.1", on_port.port)
    head, body = raw_request(on_port, "a").split(b"\r\n\r\n")
    writer.write(head + b"\r\n\r\n")
    while last_uses() == before:  # the endpoint has not read the head yet
        await asyncio.sleep(0.01)
    writer.write(body)
    assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201 ")
    writer.close()
    assert on_port.without_task == []


def raw_request(worker: Worker, app_name: str) -> bytes:
    body = json.dumps(LOG | {"app_name": app_name}).encode()
    authorization = worker.client.headers["authorization"]
    return (
        b"POST /v1/factory_logs HTTP/1.1\r\nHost: logs.test\r\nContent-Type: application/json\r\n"
        b"Authorization: %b\r\nContent-Length: %d\r\n\r\n%b" % (authorization.encode(), len(body), body)
    )


async def test_pipelined_requests_get_their_responses_in_order(on_port: Worker) -> None:
    names = [f"app-{number}" for number in range(5)]
    reader, writer = await asyncio.open_connection("127.0.0.1", on_port.port)
    writer.write(b"".join(raw_request(on_port, name) for name in names))
    responses = []
    for _ in names:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 201 ")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        responses.append(json.loads(await reader.readexactly(length)))
    writer.close()
    assert [response["app_name"] for response in responses] == names


async def test_a_log_is_stored_though_its_client_has_disconnected(
    on_port: Worker, migrated_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with locked(migrated_url):
        _, writer = await asyncio.open_connection("127.0.0.1", on_port.port)
        writer.write(raw_request(on_port, "gone"))
        other = asyncio.create_task(on_port.client.post("/write?db=x", content=POINT))
        while on_port.without_task != [True, True]:
            await asyncio.sleep(0.01)
        writer.transport.abort()
        await asyncio.sleep(0.1)
    assert (await other).status_code == 204
    while (await on_port.client.get("/v1/factory_logs")).json()["num_results"] != 2:
        await asyncio.sleep(0.01)
    assert not caplog.records


async def test_an_unexpected_error_of_one_response_is_a_500_of_its_own(
    on_port: Worker, migrated_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = logs.created

    def failing(body: bytes, *arguments: Any, **options: Any) -> Any:
        if b'"bad"' in body:
            raise ValueError("a bug")
        return right(body, *arguments, **options)

    monkeypatch.setattr(logs, "created", failing)
    async with locked(migrated_url):  # so that they share a commit
        sent = [
            asyncio.create_task(on_port.client.post("/v1/factory_logs", json=LOG | {"app_name": name}))
            for name in ("a", "bad", "c")
        ]
        while on_port.without_task != [True] * 3:
            await asyncio.sleep(0.01)
    responses = await asyncio.gather(*sent)
    assert [response.status_code for response in responses] == [201, 500, 201]
    assert responses[1].json() == {
        "message": "Internal server error", "request_id": responses[1].headers["x-request-id"]
    }  # fmt: skip


async def test_a_log_line_that_cannot_be_written_fails_no_request(
    on_port: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(**_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(on_port.app.state.access_log, "write", fail)
    url, body, headers = CALLS["log"]
    for _ in range(2):
        assert (await on_port.client.post(url, content=body, headers=headers)).status_code == 201
    assert on_port.without_task == [True, True]


async def test_a_client_that_must_first_read_gets_its_response_by_messages(
    on_port: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, body, headers = CALLS["log"]
    usual = await on_port.client.post(url, content=body, headers=headers)
    monkeypatch.setattr(Exchange, "respond", lambda *_: False)
    response = await on_port.client.post(url, content=body, headers=headers)
    assert on_port.without_task == [True, True]
    assert_same(usual, response, 201)


async def test_a_waiting_request_gets_a_503_if_the_service_stops(
    database: Database, migrated_url: str, tokens: dict[Level, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        worker(migrated_url) as app,
        served(app, tokens[Level.SYSTEM], monkeypatch) as on_port,
        locked(migrated_url),
    ):
        sent = [asyncio.create_task(on_port.client.post("/write?db=x", content=POINT)) for _ in range(2)]
        while on_port.without_task != [True, True]:
            await asyncio.sleep(0.01)
        await on_port.services.group_commit.stop()
        responses = await asyncio.gather(*sent)
    assert [response.status_code for response in responses] == [503, 503]
    assert all("retry-after" in response.headers for response in responses)


async def test_a_trusted_proxy_is_believed(
    database: Database, migrated_url: str, tokens: dict[Level, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACTORY_LOGS_TRUSTED_PROXIES", "127.0.0.1")
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-Prefix": "/logs", "Host": "example.test"}
    async with worker(migrated_url) as app, served(app, tokens[Level.SYSTEM], monkeypatch) as on_port:
        url, body, headers = CALLS["log"]
        first, second = await on_port.both(url, body, **headers, **forwarded)
    assert_same(first, second, 201)
    for response in (first, second):
        assert response.headers["location"] == (
            f"https://example.test/logs/v1/factory_logs/{response.json()['factory_log_id']}"
        )


async def test_a_waiting_log_does_not_keep_the_body(app: FastAPI) -> None:
    user = CurrentUser(1, "system", Level.SYSTEM, False)
    body = bytearray(json.dumps(LOG).encode())
    before = sys.getrefcount(body)
    scope = {"query_string": b"", "scheme": "http", "path": "/v1/factory_logs", "headers": []}
    read_body = logs._read_head(Head(scope, {b"content-type": b"application/json"}))
    assert read_body is not None
    write = read_body(body, user, app.state.services)
    assert write is not None
    assert sys.getrefcount(body) == before


@pytest.mark.parametrize("call", CALLS)
async def test_a_retry_with_a_key_gets_the_first_response(on_port: Worker, call: str) -> None:
    url, body, headers = CALLS[call]
    keyed = headers | {"Idempotency-Key": "k"}
    first = await on_port.client.post(url, content=body, headers=keyed)
    second, third = await on_port.both(url, body, **keyed)
    assert (second.content, second.headers.get("location")) == (first.content, first.headers.get("location"))
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert_same(second, third, 201 if call == "log" else 204)
    assert (await on_port.client.get("/v1/factory_logs")).json()["num_results"] == 1
    assert on_port.without_task == [True, True, False]


@pytest.mark.parametrize("call", CALLS)
async def test_a_key_of_another_body_is_a_conflict(on_port: Worker, call: str) -> None:
    url, body, headers = CALLS[call]
    keyed = headers | {"Idempotency-Key": "k"}
    await on_port.client.post(url, content=body, headers=keyed)
    other = body + b" " if call == "log" else body.replace(b"m", b"n", 1)
    assert_same(*await on_port.both(url, other, **keyed), 409)


@pytest.mark.parametrize("call", NO_REPAIR)
async def test_an_error_says_whether_the_key_was_used(on_port: Worker, database: Database, call: str) -> None:
    url, body, headers = NO_REPAIR[call]
    keyed = headers | {"Idempotency-Key": "k"}
    first, second = await on_port.both(url, body, **keyed)
    assert_same(first, second, 400)
    if call == "log":
        assert first.headers["idempotency-key-used"] == "false"


async def test_concurrent_writes_with_one_key_store_one_log(on_port: Worker, migrated_url: str) -> None:
    url, body, headers = CALLS["log"]
    async with locked(migrated_url):
        sent = [
            asyncio.create_task(on_port.client.post(url, content=body, headers=headers | {"Idempotency-Key": "k"}))
            for _ in range(5)
        ]
        while on_port.without_task != [True] * 5:
            await asyncio.sleep(0.01)
    responses = await asyncio.gather(*sent)
    assert {response.status_code for response in responses} == {201}
    assert len({response.content for response in responses}) == 1
    assert sorted(response.headers.get("idempotency-replayed", "") for response in responses) == ["", *["true"] * 4]
    assert (await on_port.client.get("/v1/factory_logs")).json()["num_results"] == 1

"""A request has the same response and effect with a task and without one, however its bytes arrive."""

import asyncio
import gzip
import json
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple

import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from starlette.types import Receive, Scope, Send

from factory_logs.api.http.exchange import Exchange
from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.asgi.workers import POINT, Worker, served
from tests.api.conftest import worker
from tests.factories import LOG

PATIENCE_SECONDS = 60
LAST = b"GET /healthz HTTP/1.1\r\nHost: logs.test\r\nConnection: close\r\n\r\n"
JSON_BODY = json.dumps(LOG).encode()
UNKNOWN_REPAIR = json.dumps(LOG | {"repair_id": 999}).encode()
BODIES = st.sampled_from(
    (
        JSON_BODY, POINT, b"", b"[%b]" % JSON_BODY, JSON_BODY + b"\n", b"\xef\xbb\xbf" + JSON_BODY,
        b"\xef\xbb\xbf" + POINT, POINT + b"\r\n", POINT + b"\n" + POINT, b"{}", b"x", b"m f=1", b"m f=", b"\xff",
        b" " * 20_000 + JSON_BODY, b'm,repair_id=999 f="a"', gzip.compress(JSON_BODY, mtime=0),
    )
)  # fmt: skip
TARGETS = st.sampled_from(
    (
        "/v1/factory_logs/", "/v1/factory%5Flogs",
        "/v1/factory_logs?unknown=1", "/v1/factory_logs?", "/write", "/write?db=x&precision=s&u=a&p=", "/WRITE?db=x",
        "http://other.test/v1/factory_logs", "/api/v2/write", "/api/v2/write?bucket=x&precision=h", "/logs/write?db=x",
    )
)  # fmt: skip
EXTRA_HEADERS = st.lists(
    st.sampled_from(
        (
            "Connection: close", "Connection: keep-alive", "Expect: 100-continue", "Idempotency-Key: k",
            "Content-Encoding: gzip", "Content-Encoding: identity", "X-Request-ID: id-1", "x-request-id: \xe9",
            "TRACEPARENT: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "Upgrade: h2c",
            "Connection: Upgrade", "X-Forwarded-Proto: https", "X-Forwarded-Prefix: /logs",
            "X-Forwarded-For: 192.0.2.1", "Host: second.test", "Authorization: Token token=x",
            "Content-Type: text/plain",
        )
    ),
    max_size=2,
)  # fmt: skip
CONTENT_TYPES = st.sampled_from(
    ("Content-Type: application/json",) * 4
    + ("CONTENT-TYPE: application/json; charset=utf-8", "Content-Type: application/x-ndjson", "X-None: 1")
)


class Draft(NamedTuple):
    """A request without its token."""

    method: str
    target: str
    version: str
    headers: list[str]
    body: bytes
    framing: str

    def text(self, token: str) -> bytes:
        lines = [f"{self.method} {self.target} HTTP/{self.version}", "Host: logs.test", *self.headers]
        lines.append(f"authorization: Token token={token}")
        body = self.body
        match self.framing:
            case "chunked":
                lines.append("Transfer-Encoding: chunked")
                body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
            case "short":
                lines.append(f"Content-Length: {max(len(body) - 1, 0)}")
            case "long":
                lines.append(f"Content-Length: {len(body) + 1}")
            case name:
                lines.append(f"{name}: {len(body)}")
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


JSON_TYPE = "Content-Type: application/json"
KEY = "Idempotency-Key: k"
USUAL = (
    Draft("POST", "/v1/factory_logs", "1.1", [JSON_TYPE], JSON_BODY, "Content-Length"),
    Draft("POST", "/write?db=x", "1.1", [JSON_TYPE], POINT, "Content-Length"),
    Draft("POST", "/api/v2/write?bucket=x", "1.1", [JSON_TYPE], POINT, "Content-Length"),
    Draft("POST", "/v1/factory_logs", "1.1", [JSON_TYPE, KEY], JSON_BODY, "Content-Length"),
    Draft("POST", "/v1/factory_logs", "1.1", [JSON_TYPE, KEY], JSON_BODY + b" ", "Content-Length"),
    Draft("POST", "/v1/factory_logs", "1.1", [JSON_TYPE, KEY], UNKNOWN_REPAIR, "Content-Length"),
    Draft("POST", "/write?db=x", "1.1", [JSON_TYPE, KEY], POINT, "Content-Length"),
)
"""Requests that need no task if each of them arrives whole."""
PARTS = {
    "method": st.sampled_from(("POST", "OPTIONS", "PUT", "post")),
    "target": TARGETS,
    "version": st.just("1.0"),
    "headers": st.builds(lambda kind, extra: [kind, *extra], CONTENT_TYPES, EXTRA_HEADERS),
    "body": BODIES,
    "framing": st.sampled_from(("content-length", "CONTENT-LENGTH", "chunked", "short", "long")),
}
ONE_CHANGE = st.one_of(*(st.fixed_dictionaries({name: part}) for name, part in PARTS.items()))
CHANGES = st.one_of(st.just({}), ONE_CHANGE, ONE_CHANGE, st.fixed_dictionaries({}, optional=PARTS))
DRAFTS = st.builds(lambda usual, changes: usual._replace(**changes), st.sampled_from(USUAL), CHANGES)
CUTS = st.one_of(st.just([]), st.lists(st.floats(0, 1), max_size=3))


class Pair(NamedTuple):
    """The same worker on two ports."""

    without_tasks: Worker
    with_tasks: Worker


class TaskForEach:
    """An application that serves each request with a task."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def start_without_task(self, _: Exchange) -> bool:
        return False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


@pytest.fixture
async def pair(
    database: Database, migrated_url: str, tokens: dict[Level, str], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Pair]:
    monkeypatch.setenv("FACTORY_LOGS_TRUSTED_PROXIES", "127.0.0.1")
    token = tokens[Level.SYSTEM]
    async with AsyncExitStack() as stack:
        app = await stack.enter_async_context(worker(migrated_url, token_cache_seconds=3600.0))
        without_tasks = await stack.enter_async_context(served(app, token, monkeypatch))
        with_tasks = await stack.enter_async_context(served(TaskForEach(app), token, monkeypatch))
        yield Pair(without_tasks, with_tasks)
        assert any(without_tasks.without_task)
        assert not any(with_tasks.without_task)


def segments_of(requests: list[bytes], cuts: list[float]) -> list[bytes]:
    """Return the bytes of the requests in pieces, which end at the end of each request and at `cuts` of it."""
    segments = []
    for request in requests:
        ends = [*sorted({round(cut * len(request)) for cut in cuts} - {0}), len(request)]
        segments += [request[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [segment for segment in segments if segment]


async def received(port: int, segments: list[bytes], *, pause: bool) -> bytes:
    """Send the segments on one connection. Return all bytes that the service sends until it closes the connection."""
    loop = asyncio.get_running_loop()
    result = b""
    async with asyncio.timeout(PATIENCE_SECONDS):
        # Not a stream: that drops received bytes if the service closes the connection before all segments are sent.
        with socket.socket() as connection:
            connection.setblocking(False)
            await loop.sock_connect(connection, ("127.0.0.1", port))
            with suppress(ConnectionError):
                for segment in segments:
                    await loop.sock_sendall(connection, segment)
                    if pause:
                        await asyncio.sleep(0.001)
            with suppress(ConnectionError):
                while part := await loop.sock_recv(connection, 65536):
                    result += part
    return result


OWN_VALUES = re.compile(
    rb'(?P<name>"(?:factory_log_id|first_id|last_id|ids|created_at|request_id)":"?|/v1/factory_logs/|'
    rb'\r\n(?:x-request-id|date|content-length): )(?!id-1)[^\r",]*'
)
"""The values that differ from response to response, but not a given request id."""
ROWS = text(
    "SELECT app_name, product_imei, tags::text, fields::text, created_by FROM factory_logs ORDER BY factory_log_id"
)


async def stored(database: Database) -> list[Any]:
    """Return the stored logs. Delete them and the idempotency keys, so that the next requests are no retries."""
    async with database.begin() as connection:
        rows = list(await connection.execute(ROWS))
        await connection.execute(text("DELETE FROM factory_logs"))
        await connection.execute(text("DELETE FROM idempotency_keys"))
    return rows


@pytest.mark.slow
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=100, deadline=None
)
@given(drafts=st.lists(DRAFTS, min_size=1, max_size=3), cuts=CUTS, pause=st.sampled_from((True, True, True, False)))
async def test_both_ways_agree(
    pair: Pair, database: Database, monkeypatch: pytest.MonkeyPatch, drafts: list[Draft], cuts: list[float], pause: bool
) -> None:
    lines: list[tuple[object, ...]] = []

    def note(**line: object) -> None:
        lines.append(tuple(line.get(name) for name in ("method", "route", "status", "user", "trace_id")))

    monkeypatch.setattr(pair.without_tasks.app.state.access_log, "write", note)
    token = pair.without_tasks.client.headers["authorization"].partition("=")[2]
    segments = [*segments_of([draft.text(token) for draft in drafts], cuts), LAST]
    responses, rows = [], []
    for each in pair:
        responses.append(OWN_VALUES.sub(rb"\g<name>", await received(each.port, segments, pause=pause)))
        rows.append(await stored(database))
    assert responses[0] == responses[1]
    assert rows[0] == rows[1]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while any(number % 2 for number in Counter(lines).values()):
            await asyncio.sleep(0.01)

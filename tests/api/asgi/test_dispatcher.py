import base64
import hashlib
import io
import json
import re

import httpx
import pytest
from fastapi import FastAPI

from factory_logs.api.asgi.access_log import LOGGED_PATH_CHARACTERS
from factory_logs.db.engine import Database
from factory_logs.settings import Settings
from tests.api.conftest import client_of, worker

LOG = {"app_name": "tiger", "timestamp": "2024-01-31"}
JSON = {"Content-Type": "application/json"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    [
        "/v1/factory_logs",
        "/v1/factory_logs?cursor=&results_per_page=1",
        "/v1/factory_logs/stats?bucket=1d",
        "/v1/factory_logs/1",
        "/v1/factory_logs/2",
        "/healthz",
    ],
)
async def test_head_has_the_response_of_get_without_the_body(client: httpx.AsyncClient, path: str) -> None:
    await client.post("/v1/factory_logs", json=LOG)
    get, head = await client.get(path), await client.head(path)
    assert (head.status_code, head.content) == (get.status_code, b"")
    own = {"x-request-id", "date"}
    assert {k: v for k, v in head.headers.items() if k not in own} == {
        k: v for k, v in get.headers.items() if k not in own
    }


async def test_head_of_a_path_without_get_gets_a_405(client: httpx.AsyncClient) -> None:
    response = await client.head("/v1/auth/login")
    assert (response.status_code, response.headers["allow"]) == (405, "OPTIONS, POST")


async def test_each_response_has_its_own_request_id(anonymous: httpx.AsyncClient) -> None:
    ids = [(await anonymous.get("/healthz")).headers["x-request-id"] for _ in range(2)]
    assert ids[0] != ids[1]
    assert all(re.fullmatch("[0-9a-f]{16}", request_id) for request_id in ids)


@pytest.mark.parametrize(
    ("sent", "kept"), [("abc-1.2_X", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("<x>", False)]
)
async def test_a_valid_request_id_of_the_client_is_sent_back(
    anonymous: httpx.AsyncClient, sent: str, kept: bool
) -> None:
    response = await anonymous.get("/nothing", headers={"X-Request-ID": sent})
    assert (response.headers["x-request-id"] == sent) is kept
    assert response.json()["request_id"] == response.headers["x-request-id"]


TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


async def test_the_log_line_has_the_trace_id_of_a_valid_traceparent(
    database: Database, migrated_url: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    valid = [
        f"00-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-00",
        f"cc-{TRACE}-{PARENT}-01",
        f"cc-{TRACE}-{PARENT}-01-x",
    ]
    invalid = [
        "", "x" * 55, f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01-x", f"cc-{TRACE}-{PARENT}-01x",
        f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01", f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE[1:]}-{PARENT}-01", f"00-{TRACE}-{PARENT}",
    ]  # fmt: skip
    async with worker(migrated_url) as app, client_of(app, None) as client:
        for number, traceparent in enumerate(valid + invalid):
            await client.get("/healthz", headers={"traceparent": traceparent, "X-Request-ID": f"traced-{number}"})
    printed = b"".join(capfdbinary.readouterr()).splitlines()
    lines = [json.loads(line) for line in printed if b'"traced-' in line]
    found = {line["request_id"]: line.get("trace_id") for line in lines}
    assert list(found.values()) == [TRACE] * len(valid) + [None] * len(invalid)


async def test_a_body_at_the_limit_is_read_and_one_byte_more_gets_a_413(
    client: httpx.AsyncClient, settings: Settings
) -> None:
    body = json.dumps(LOG).encode()
    for size, status in ((settings.max_body_bytes, 201), (settings.max_body_bytes + 1, 413)):
        response = await client.post("/v1/factory_logs", content=body.ljust(size), headers=JSON)
        assert response.status_code == status, response.text
        assert str(settings.max_body_bytes) in response.text or status == 201


async def test_a_body_over_the_limit_is_refused_by_its_announced_length_before_it_is_sent(
    app: FastAPI, client: httpx.AsyncClient, settings: Settings
) -> None:
    """The body is not read: a refused body of 16 MiB must not be transferred first."""
    received = 0
    sent: list[dict[str, object]] = []

    async def receive() -> dict[str, object]:
        nonlocal received
        received += 1
        return {"type": "http.request", "body": b"", "more_body": True}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(settings.max_body_bytes + 1).encode()),
        (b"authorization", client.headers["authorization"].encode()),
    ]
    scope = {
        "type": "http", "method": "POST", "path": "/v1/factory_logs", "raw_path": b"/v1/factory_logs",
        "query_string": b"", "headers": headers, "scheme": "http", "server": ("logs.test", 80),
        "client": ("127.0.0.1", 1), "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)  # type: ignore[arg-type]
    assert (sent[0]["status"], received) == (413, 0)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/v1/factory_logs", "/v1/factory_logs/1", "/healthz", "/nothing", "/openapi.json"])
async def test_no_response_runs_as_a_script_or_in_a_frame(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


async def test_the_docs_page_runs_only_its_own_scripts(anonymous: httpx.AsyncClient) -> None:
    page = await anonymous.get("/docs")
    policy = page.headers["content-security-policy"]
    (script,) = re.findall("<script>(.*?)</script>", page.text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'self' 'sha256-{digest}';" in policy
    assert "unsafe-eval" not in policy
    assert re.search("script-src [^;]*unsafe-inline", policy) is None
    assert "frame-ancestors 'none'" in policy
    assert page.headers["referrer-policy"] == "no-referrer"


async def test_a_token_is_not_cached(anonymous: httpx.AsyncClient, tokens: object) -> None:
    credentials = {"username": "overview", "password": "open sesame"}
    response = await anonymous.post("/v1/auth/login", json=credentials)
    assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")


async def test_a_long_path_is_cut(app: FastAPI, anonymous: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.BytesIO()
    app.state.access_log.flush()
    monkeypatch.setattr(app.state.access_log, "_stream", stream)
    assert (await anonymous.get("/" + "x" * 60_000)).status_code == 404
    app.state.access_log.flush()
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["route"] == "/" + "x" * (LOGGED_PATH_CHARACTERS - 1)

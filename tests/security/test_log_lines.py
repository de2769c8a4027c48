"""The log line of a request: who, what and how long, but never a secret or the content
(docs/reference/http-api.md#authentication)."""

import json
from pathlib import Path

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.permissions import Level
from factory_logs.security.passwords import Passwords
from factory_logs.security.tokens import issue_token
from tests.serving import free_port, serving

PASSWORD = "a-password-not-to-be-told"
BODY = "a-body-not-to-be-told"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
QUERY = "a-query-not-to-be-told"
WRONG = "W" * 64
LOG = {"app_name": BODY, "timestamp": "2024-01-31", "tags": {"a": BODY}}


@pytest.mark.slow
async def test_no_line_holds_a_password_a_token_a_query_or_a_body(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    user = await UserRepository(database).create("ann", "Ann", await Passwords().hash(PASSWORD), Level.SYSTEM)
    token = await issue_token(database, user.user_id, expires_at=None)
    port, output = free_port(), tmp_path / "output"
    settings = {"FACTORY_LOGS_DATABASE_URL": migrated_url, "FACTORY_LOGS_LOG_LEVEL": "debug"}
    with serving(settings, port, output), httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        headers = {"Authorization": f"Token token={token}"}
        login = client.post("/v1/auth/login", json={"username": "ann", "password": PASSWORD})
        issued = login.json()["message"]["login_successful"]["API_token"]
        client.post("/v1/auth/login", data={"username": "ann", "password": PASSWORD + "?"})
        client.post(
            "/v1/auth/login", content=f'{{"password": "{PASSWORD}"', headers={"Content-Type": "application/json"}
        )
        stored = client.post(
            "/v1/factory_logs",
            json=LOG,
            headers=headers | {"X-Request-ID": "mine-1", "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"},
        )
        client.post("/v1/factory_logs", json=LOG | {BODY: 1}, headers=headers)
        client.post("/v1/factory_logs", json=[LOG, {}], headers=headers | {"Idempotency-Key": QUERY})
        client.post("/v1/factory_logs", content=BODY, headers=headers)
        client.get("/v1/factory_logs", params={"q": QUERY}, headers=headers)
        client.get("/v1/factory_logs", headers={"Authorization": f"Token token={WRONG}"})
        client.post("/write", params={"db": QUERY, "u": "ann", "p": token}, content=f"{BODY} a=1")
        client.post("/write", params={"db": QUERY}, content=BODY, auth=("ann", token))
        assert stored.status_code == 201, stored.text
    written = output.read_text()
    for secret in (PASSWORD, BODY, QUERY, WRONG, token, issued):
        assert secret not in written
    lines = [json.loads(line) for line in written.splitlines() if line.startswith("{")]
    line = next(line for line in lines if line.get("request_id") == "mine-1")
    assert {name: line[name] for name in ("event", "user", "method", "route", "status")} == {
        "event": "request", "user": "ann", "method": "POST", "route": "/v1/factory_logs", "status": 201
    }  # fmt: skip
    assert line["ms"] > 0
    assert line["trace_id"] == TRACE
    assert sum("trace_id" in line for line in lines) == 1
    assert {"level", "timestamp"} <= line.keys()
    assert sum(line["event"] == "request" for line in lines) >= 11

"""A token issued with `--only-write` stores logs; every other call that needs a token is a 403."""

import re
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI

from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.security.tokens import issue_token
from tests.api.conftest import client_of

LOG = {"app_name": "tiger", "timestamp": "2024-01-31"}
LINE = "tiger f=1 1706708700000000000"
STORES_LOGS = {("POST", "/v1/factory_logs"), ("POST", "/write"), ("POST", "/api/v2/write")}
NEEDS_NO_TOKEN = {"/healthz", "/readyz", "/metrics", "/ping", "/health", "/v1/auth/login"}


@pytest.fixture
async def token(database: Database) -> str:
    jig = await UserRepository(database).create("jig", "Jig", None, "SYSTEM")
    return await issue_token(database, jig.user_id, expires_at=None, only_write=True)


@pytest.fixture
async def jig(app: FastAPI, token: str) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app, token) as client:
        yield client


async def test_it_stores_logs_with_each_call(jig: httpx.AsyncClient, token: str) -> None:
    assert (await jig.post("/v1/factory_logs", json=LOG)).status_code == 201
    assert (await jig.post("/v1/factory_logs", json=[LOG, LOG])).status_code == 201
    keyed = await jig.post("/v1/factory_logs", json=LOG, headers={"Idempotency-Key": "k"})
    assert (keyed.status_code, keyed.json()["created_by"]) == (201, "jig")
    assert (await jig.post("/write?db=jigs", content=LINE)).status_code == 204
    assert (await jig.post("/api/v2/write?bucket=jigs&org=o", content=LINE)).status_code == 204
    assert (await jig.post("/write", params={"db": "jigs", "u": "jig", "p": token}, content=LINE)).status_code == 204
    basic = httpx.BasicAuth("jig", token)
    assert (await jig.post("/write?db=jigs", content=LINE, auth=basic)).status_code == 204


async def test_each_other_call_gets_a_403(app: FastAPI, jig: httpx.AsyncClient) -> None:
    asked = set()
    for path, methods in app.openapi()["paths"].items():
        for method in map(str.upper, methods):
            if path in NEEDS_NO_TOKEN or (method, path) in STORES_LOGS or method in ("PUT", "PATCH", "DELETE"):
                continue
            params = {"username": "jig", "q": "SHOW DATABASES"}
            response = await jig.request(method, re.sub(r"\{\w+\}", "1", path), params=params)
            assert response.status_code == 403, f"{method} {path}: {response.status_code} {response.text}"
            asked.add((method, path))
    assert {
        ("GET", "/v1/factory_logs"), ("GET", "/v1/factory_logs/{factory_log_id}"), ("GET", "/v1/factory_logs/stats"),
        ("GET", "/v1/factory_logs/tail"), ("POST", "/v1/repairs"), ("GET", "/v1/auth/validate_user"), ("GET", "/query"),
    } <= asked  # fmt: skip


async def test_a_user_below_the_level_that_stores_logs_may_do_nothing(app: FastAPI, database: Database) -> None:
    ann = await UserRepository(database).create("ann", "Ann", None, "FACTORY")
    token = await issue_token(database, ann.user_id, expires_at=None, only_write=True)
    async with client_of(app, token) as client:
        refused = await client.post("/v1/factory_logs", json=LOG)
        assert (refused.status_code, refused.json()["message"]) == (
            403,
            "This needs the permission SYSTEM; ann has FACTORY.",
        )
        assert (await client.post("/write?db=jigs", content=LINE)).status_code == 403

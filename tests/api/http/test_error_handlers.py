"""Every error has the same JSON format (docs/reference/http-api.md#errors)."""

import itertools
from collections.abc import MutableMapping
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from factory_logs.api.services import Services
from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import assert_error, client_of, worker

PATHS = {
    "/v1/factory_logs": "GET, HEAD, OPTIONS, POST",
    "/v1/factory_logs/1": "GET, HEAD, OPTIONS",
    "/v1/factory_logs/abc": "GET, HEAD, OPTIONS",
    "/v1/repairs": "GET, HEAD, OPTIONS, POST",
    "/v1/repairs/1": "GET, HEAD, OPTIONS",
    "/v1/auth/login": "OPTIONS, POST",
    "/v1/auth/validate_user": "GET, HEAD, OPTIONS",
}
CALLS = {
    ("POST", "/v1/factory_logs"): Level.SYSTEM,
    ("GET", "/v1/factory_logs"): Level.OVERVIEW,
    ("GET", "/v1/factory_logs/1"): Level.OVERVIEW,
    ("POST", "/v1/repairs"): Level.SYSTEM,
    ("GET", "/v1/repairs"): Level.OVERVIEW,
    ("GET", "/v1/repairs/1"): Level.OVERVIEW,
    ("GET", "/v1/auth/validate_user?username=x"): Level.SYSTEM,
}
"""The permission that each call needs (docs/reference/http-api.md#calls)."""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_an_unsupported_method_gets_a_405_with_allow_also_without_a_token(
    anonymous: httpx.AsyncClient, client: httpx.AsyncClient, method: str
) -> None:
    for caller, (path, allow) in itertools.product((anonymous, client), PATHS.items()):
        response = await caller.request(method, path, content=b"{", headers={"Content-Type": "application/json"})
        assert_error(response, 405)
        assert (path, response.headers["allow"]) == (path, allow)


async def test_options_lists_the_methods(anonymous: httpx.AsyncClient) -> None:
    for path, allow in PATHS.items():
        response = await anonymous.options(path)
        assert (path, response.status_code, response.headers["allow"], response.content) == (path, 200, allow, b"")


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
async def test_an_unknown_path_gets_a_404(anonymous: httpx.AsyncClient, method: str) -> None:
    for path in ("/v1", "/v1/nothing", "/v1/factory_logs/", "/v1/factory_logs/1/", "/v1/factory_logs/1/2"):
        assert_error(await anonymous.request(method, path), 404)


async def test_errors_are_listed_only_if_fields_are_invalid(client: httpx.AsyncClient) -> None:
    body = assert_error(await client.post("/v1/factory_logs", json={"app_name": "a", "timestamp": "?"}), 400)
    (error,) = body["errors"]  # type: ignore[misc]
    assert error.keys() == {"field", "message"}
    assert error["field"] == "timestamp"
    assert "errors" not in assert_error(await client.get("/v1/factory_logs?page=0"), 400)


@pytest.mark.slow
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer x", "Token", "Token token=", "Token token=unknown", "\xe9"]
)
async def test_without_a_valid_token_every_call_gets_a_401(
    anonymous: httpx.AsyncClient, authorization: str | None
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode("latin-1")}
    for method, path in CALLS:
        response = await anonymous.request(method, path, headers=headers)  # type: ignore[arg-type]
        assert_error(response, 401)
        assert response.headers["www-authenticate"].lower().startswith("token")


@pytest.mark.slow
@pytest.mark.parametrize("level", list(Level))
async def test_a_level_below_the_needed_one_gets_a_403_that_names_both(
    app: FastAPI, tokens: dict[Level, str], level: Level
) -> None:
    async with client_of(app, tokens[level]) as client:
        for (method, path), needed in CALLS.items():
            response = await client.request(method, path)
            if level.includes(needed):
                assert response.status_code not in (401, 403), (method, path)
                continue
            message = str(assert_error(response, 403)["message"])
            assert needed in message
            assert level in message


async def test_a_500_has_no_internal_details(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("secret of the inside")

    services: Services = app.state.services
    monkeypatch.setattr(services.authenticator, "cached", broken)
    response = await client.get("/v1/factory_logs")
    assert assert_error(response, 500)["message"] == "Internal server error"
    assert "secret" not in response.text


async def test_an_unreachable_database_gets_a_503_with_retry_after(
    own_app: FastAPI, tokens: dict[Level, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with client_of(own_app, tokens[Level.SYSTEM]) as client:
        assert (await client.get("/v1/factory_logs")).status_code == 200  # the token is cached now

        services: Services = own_app.state.services
        await services.database.dispose()
        services.pages.close()
        monkeypatch.setattr(services.database, "dsn", "postgresql://nobody@127.0.0.1:1/nowhere")
        for path in ("/v1/factory_logs", "/v1/factory_logs/1", "/v1/repairs", "/readyz"):
            response = await client.get(path)
            assert_error(response, 503)
            assert int(response.headers["retry-after"]) > 0
        assert (await client.get("/healthz")).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/auth/login", "application/json"),
        ("/v1/auth/login", "application/x-www-form-urlencoded"),
        ("/v1/auth/login", "multipart/form-data; boundary=x"),
        ("/query", "application/x-www-form-urlencoded"),
        ("/v1/repairs", "application/json"),
        ("/v1/factory_logs", "application/json"),
        ("/v1/factory_logs", "application/x-ndjson"),
        ("/write", "text/plain"),
    ],
)
async def test_a_client_that_disconnects_while_it_sends_a_body_is_not_logged_as_an_error(
    database: Database,
    migrated_url: str,
    tokens: dict[Level, str],
    capfdbinary: pytest.CaptureFixture[bytes],
    path: str,
    content_type: str,
) -> None:
    messages: list[MutableMapping[str, Any]] = [
        {"type": "http.request", "body": b'{"username', "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> MutableMapping[str, Any]:
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message: MutableMapping[str, Any]) -> None:
        """Behave like a server whose client has disconnected."""

    token = f"Token token={tokens[Level.SYSTEM]}".encode()
    headers = [(b"content-type", content_type.encode()), (b"content-length", b"100"), (b"authorization", token)]
    scope = {
        "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "path": path,
        "raw_path": path.encode(), "root_path": "", "query_string": b"db=x", "headers": headers,
        "client": ("127.0.0.1", 50000), "server": ("logs.test", 80),
    }  # fmt: skip
    async with worker(migrated_url) as app:
        await app(scope, receive, send)
    printed = b"".join(capfdbinary.readouterr())
    assert b'"status":499' in printed
    assert b"unexpected error" not in printed

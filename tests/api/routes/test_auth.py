import asyncio
import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import httpx
import pytest
from fastapi import FastAPI

from factory_logs.permissions import Level
from factory_logs.settings import Settings
from tests.api.conftest import client_of, worker

CREDENTIALS = {"username": "overview", "password": "open sesame"}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["json", "data", "files"])
async def test_login_returns_a_token_that_works(
    app: FastAPI, anonymous: httpx.AsyncClient, tokens: dict[Level, str], how: str
) -> None:
    body = {how: {name: (None, text) for name, text in CREDENTIALS.items()} if how == "files" else CREDENTIALS}
    response = await anonymous.post("/v1/auth/login", **body)  # type: ignore[arg-type]
    assert response.status_code == 200, response.text
    login = response.json()["message"]["login_successful"]
    assert response.json()["status"] == "success"
    assert re.fullmatch("[A-Za-z0-9]{64}", login["API_token"])
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", login["token_expiry"])
    assert parsedate_to_datetime(login["token_expiry"])
    assert {key: login[key] for key in ("username", "display_name", "permissions", "user_product_visibility")} == {
        "username": "overview",
        "display_name": "Overview",
        "permissions": "OVERVIEW",
        "user_product_visibility": "GLOBAL",
    }
    assert login["hub_id"] is None
    assert login["shop_id"] is None
    async with client_of(app, login["API_token"]) as client:
        assert (await client.get("/v1/factory_logs")).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "credentials", [{"username": "overview", "password": "wrong"}, {"username": "nobody", "password": "open sesame"}]
)
async def test_a_wrong_username_and_a_wrong_password_are_the_same_401(
    anonymous: httpx.AsyncClient, tokens: dict[Level, str], credentials: dict[str, str]
) -> None:
    response = await anonymous.post("/v1/auth/login", json=credentials)
    assert response.status_code == 401
    assert response.json()["message"] == "The username or the password is wrong."


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "faulty"),
    [
        ({"user": "overview"}, ["username", "password"]),
        ({"username": "overview"}, ["password"]),
        ({"username": "x" * 256, "password": "y"}, ["username"]),
        ({"username": "x", "password": "y" * 1025}, ["password"]),
    ],
)
async def test_login_without_valid_username_and_password_gets_a_400_that_names_them(
    anonymous: httpx.AsyncClient, body: dict[str, str], faulty: list[str]
) -> None:
    for response in (
        await anonymous.post("/v1/auth/login", json=body),
        await anonymous.post("/v1/auth/login", data=body),
    ):
        assert response.status_code == 400
        assert [error["field"] for error in response.json()["errors"]] == faulty


@pytest.mark.parametrize("body", [{"username": 1, "password": 2}, {"username": None, "password": "x"}])
async def test_login_with_values_that_are_not_text_gets_a_400(
    anonymous: httpx.AsyncClient, body: dict[str, object]
) -> None:
    assert (await anonymous.post("/v1/auth/login", json=body)).status_code == 400


async def test_login_with_a_file_as_username_gets_a_400(anonymous: httpx.AsyncClient) -> None:
    response = await anonymous.post("/v1/auth/login", files={"username": ("f", b"x"), "password": (None, "y")})
    assert response.status_code == 400


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/xml"])
async def test_login_in_another_form_gets_a_415(anonymous: httpx.AsyncClient, content_type: str) -> None:
    response = await anonymous.post("/v1/auth/login", content=b"{}", headers={"Content-Type": content_type})
    assert response.status_code == 415
    assert "form" in response.json()["message"]


@pytest.mark.slow
@pytest.mark.parametrize(("over", "status"), [(0, 401), (1, 413)])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
async def test_a_login_at_the_limit_is_read_and_one_byte_more_gets_a_413(
    anonymous: httpx.AsyncClient, content_type: str, over: int, status: int
) -> None:
    body = b'{"username": "nobody", "password": "x"}' if "json" in content_type else b"username=nobody&password=x&more="
    padding = b" " if "json" in content_type else b"x"
    response = await anonymous.post(
        "/v1/auth/login",
        content=body.ljust(Settings().max_login_bytes + over, padding),
        headers={"Content-Type": content_type},
    )
    assert response.status_code == status, response.text


async def test_the_end_of_a_login_is_three_hours_from_now(
    anonymous: httpx.AsyncClient, tokens: dict[Level, str]
) -> None:
    login = (await anonymous.post("/v1/auth/login", json=CREDENTIALS)).json()["message"]["login_successful"]
    end = parsedate_to_datetime(login["token_expiry"])
    assert abs(end - datetime.now(UTC) - timedelta(hours=3)) < timedelta(minutes=1)


@pytest.mark.slow
async def test_a_login_has_exactly_the_documented_members(
    anonymous: httpx.AsyncClient, tokens: dict[Level, str]
) -> None:
    response = (await anonymous.post("/v1/auth/login", json=CREDENTIALS)).json()
    assert (response.keys(), response["message"].keys()) == ({"status", "message"}, {"login_successful"})
    assert response["message"]["login_successful"].keys() == {
        "username", "entity_id", "display_name", "name", "user_product_visibility", "hub_id", "shop_id", "API_token",
        "token_expiry", "permissions",
    }  # fmt: skip


@pytest.mark.slow
async def test_too_many_attempts_get_a_429_with_retry_after(
    anonymous: httpx.AsyncClient, tokens: dict[Level, str], settings: Settings
) -> None:
    wrong = CREDENTIALS | {"password": "wrong"}
    for _ in range(settings.login_max_failures):
        assert (await anonymous.post("/v1/auth/login", json=wrong)).status_code == 401
    for credentials in (wrong, CREDENTIALS):
        response = await anonymous.post("/v1/auth/login", json=credentials)
        assert response.status_code == 429
        assert 0 < int(response.headers["retry-after"]) <= settings.login_window_seconds
    other = await anonymous.post("/v1/auth/login", json={"username": "system", "password": "open sesame"})
    assert other.status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    "form", ["Token token={}", 'Token token="{}"', "token token={}", "TOKEN TOKEN={}", 'tOkEn  token = "{}"']
)
async def test_the_header_is_read_in_any_case_and_with_quotes(
    anonymous: httpx.AsyncClient, tokens: dict[Level, str], form: str
) -> None:
    headers = {"Authorization": form.format(tokens[Level.OVERVIEW])}
    assert (await anonymous.get("/v1/factory_logs", headers=headers)).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("form", ["Token token={}", "Token {}", "Bearer {}", "{}", '"{}"', "bearer  {}"])
async def test_every_call_accepts_every_form_of_the_header(
    app: FastAPI, anonymous: httpx.AsyncClient, tokens: dict[Level, str], form: str
) -> None:
    """With a broken `q`, each call ends directly after authentication; a call without `q` fails later or succeeds."""
    good, unknown = form.format(tokens[Level.SYSTEM]), form.format("x" * 64)
    called = 0
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if not operation.get("security") or path == "/v1/auth/logout":  # which ends the token
                continue
            called += 1
            for header, is_refused in ((good, False), (unknown, True), (good, False)):
                url = path.replace("{", "").replace("}", "")
                response = await anonymous.request(method, url, params={"q": "{"}, headers={"Authorization": header})
                assert (response.status_code == 401) == is_refused, (method, path, response.text)
                assert response.status_code != 403, (method, path)
    assert called >= 11


async def test_validate_user_returns_text(client: httpx.AsyncClient) -> None:
    for name, known in (("overview", "True"), ("nobody", "False")):
        response = await client.get("/v1/auth/validate_user", params={"username": name})
        assert response.json()["status"] == "success"
        assert response.json()["data"] == known


async def test_validate_user_without_a_name_gets_a_400_and_below_system_a_403(
    app: FastAPI, client: httpx.AsyncClient, tokens: dict[Level, str]
) -> None:
    assert (await client.get("/v1/auth/validate_user")).status_code == 400
    async with client_of(app, tokens[Level.FACTORY]) as weaker:
        assert (await weaker.get("/v1/auth/validate_user?username=x")).status_code == 403


@pytest.mark.slow
async def test_logout_ends_the_token_of_the_request_and_no_other(
    app: FastAPI, anonymous: httpx.AsyncClient, tokens: dict[Level, str]
) -> None:
    token, other = [
        (await anonymous.post("/v1/auth/login", json=CREDENTIALS)).json()["message"]["login_successful"]["API_token"]
        for _ in range(2)
    ]
    async with client_of(app, token) as client:
        assert (await client.get("/v1/factory_logs")).status_code == 200
        response = await client.post("/v1/auth/logout")
        assert (response.status_code, response.json()) == (200, {"status": "success", "message": "The token has ended"})
        assert response.headers["cache-control"] == "no-store"
        for authorization in (f"Token token={token}", token, f"Bearer {token}"):
            refused = await client.get("/v1/factory_logs", headers={"Authorization": authorization})
            assert refused.status_code == 401
        assert (await client.post("/v1/auth/logout")).status_code == 401
    for still in (other, tokens[Level.OVERVIEW]):
        async with client_of(app, still) as client:
            assert (await client.get("/v1/factory_logs")).status_code == 200


async def test_logout_without_a_token_gets_a_401(anonymous: httpx.AsyncClient) -> None:
    assert (await anonymous.post("/v1/auth/logout")).status_code == 401


async def test_a_worker_that_has_seen_a_token_refuses_it_after_a_logout_at_another_worker(
    migrated_url: str, anonymous: httpx.AsyncClient, tokens: dict[Level, str]
) -> None:
    async with (
        worker(migrated_url, token_cache_seconds=0.2) as other,
        client_of(other, tokens[Level.OVERVIEW]) as there,
    ):
        assert (await there.get("/v1/factory_logs")).status_code == 200
        here = {"Authorization": f"Token token={tokens[Level.OVERVIEW]}"}
        assert (await anonymous.post("/v1/auth/logout", headers=here)).status_code == 200
        async with asyncio.timeout(60):
            while (await there.get("/v1/factory_logs")).status_code != 401:
                await asyncio.sleep(0.05)


async def test_a_form_whose_charset_cannot_be_decoded_gets_a_400(anonymous: httpx.AsyncClient) -> None:
    body = b'--x\r\nContent-Disposition: form-data; name="username"\r\n\r\nann\r\n--x--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=x; charset=undefined"}
    response = await anonymous.post("/v1/auth/login", content=body, headers=headers)
    assert (response.status_code, response.json()["message"]) == (
        400,
        "Unable to decode data: the form is not in its charset",
    )

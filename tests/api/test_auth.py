import re
from email.utils import parsedate_to_datetime

import httpx
import pytest
from fastapi import FastAPI

from factory_logs.security.levels import Level
from tests.api.conftest import client_of

CREDENTIALS = {"username": "overview", "password": "open sesame"}


@pytest.mark.parametrize("how", ["json", "data"])
async def test_login_answers_with_a_token_that_works(
    app: FastAPI, anonymous: httpx.AsyncClient, tokens: dict[Level, str], how: str
) -> None:
    body = {"json": CREDENTIALS} if how == "json" else {"data": CREDENTIALS}
    answer = await anonymous.post("/v1/auth/login", **body)  # type: ignore[arg-type]
    assert answer.status_code == 200, answer.text
    login = answer.json()["message"]["login_successful"]
    assert answer.json()["status"] == "success"
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


@pytest.mark.parametrize(
    "credentials", [{"username": "overview", "password": "wrong"}, {"username": "nobody", "password": "open sesame"}]
)
async def test_a_bad_pair_is_a_401_that_does_not_tell_which(
    anonymous: httpx.AsyncClient, tokens: dict[Level, str], credentials: dict[str, str]
) -> None:
    answer = await anonymous.post("/v1/auth/login", json=credentials)
    assert answer.status_code == 401
    assert answer.json()["message"] == "The username or the password is wrong."


@pytest.mark.parametrize("body", [{}, {"username": "overview"}, {"username": 1, "password": 2}])
async def test_login_without_both_parts_is_a_400(anonymous: httpx.AsyncClient, body: dict[str, object]) -> None:
    assert (await anonymous.post("/v1/auth/login", json=body)).status_code == 400


async def test_validate_user_answers_as_text(client: httpx.AsyncClient) -> None:
    for name, known in (("overview", "True"), ("nobody", "False")):
        answer = await client.get("/v1/auth/validate_user", params={"username": name})
        assert answer.json()["status"] == "success"
        assert answer.json()["data"] == known


async def test_validate_user_without_a_name_is_a_400_and_below_system_a_403(
    app: FastAPI, client: httpx.AsyncClient, tokens: dict[Level, str]
) -> None:
    assert (await client.get("/v1/auth/validate_user")).status_code == 400
    async with client_of(app, tokens[Level.FACTORY]) as weaker:
        assert (await weaker.get("/v1/auth/validate_user?username=x")).status_code == 403

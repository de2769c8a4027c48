"""Logs by id never change, so they have an ETag and may be cached."""

import httpx
import pytest

from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker
from tests.factories import LOG

URL = "/v1/factory_logs/1"


@pytest.fixture
async def stored(client: httpx.AsyncClient) -> httpx.AsyncClient:
    await client.post("/v1/factory_logs", json=[LOG, LOG | {"app_name": "other"}])
    return client


async def test_a_log_may_be_cached_by_the_client_only_and_for_its_token(stored: httpx.AsyncClient) -> None:
    response = await stored.get(URL)
    assert response.headers["cache-control"] == "private, max-age=3600, immutable"
    assert response.headers["vary"] == "Authorization"
    assert response.headers["etag"] == (await stored.get(URL)).headers["etag"]
    assert response.headers["etag"] != (await stored.get("/v1/factory_logs/2")).headers["etag"]
    assert "cache-control" not in (await stored.get("/v1/factory_logs/3")).headers


@pytest.mark.parametrize("form", ["{}", "W/{}", '"x", {}', '"x",W/{} , "y"', "*"])
async def test_a_log_that_the_client_has_gets_a_304(stored: httpx.AsyncClient, form: str) -> None:
    etag = (await stored.get(URL)).headers["etag"]
    for method in ("GET", "HEAD"):
        response = await stored.request(method, URL, headers={"If-None-Match": form.format(etag)})
        assert (response.status_code, response.content, response.headers["etag"]) == (304, b"", etag)
        assert response.headers["cache-control"].startswith("private")


@pytest.mark.slow
@pytest.mark.parametrize("known", ['"x"', "", "x", 'W/"x"', ",", '"*"'])
async def test_any_other_etag_gets_the_log(stored: httpx.AsyncClient, known: str) -> None:
    response = await stored.get(URL, headers={"If-None-Match": known})
    assert (response.status_code, response.json()["factory_log_id"]) == (200, 1)


async def test_without_permission_there_is_no_304(stored: httpx.AsyncClient, anonymous: httpx.AsyncClient) -> None:
    etag = (await stored.get(URL)).headers["etag"]
    assert (await anonymous.get(URL, headers={"If-None-Match": etag})).status_code == 401
    assert (await stored.get("/v1/factory_logs/3", headers={"If-None-Match": "*"})).status_code == 404


async def test_the_cache_time_is_a_setting(database: Database, migrated_url: str, tokens: dict[Level, str]) -> None:
    async with (
        worker(migrated_url, record_cache_seconds=1) as app,
        client_of(app, tokens[Level.SYSTEM]) as client,
    ):
        await client.post("/v1/factory_logs", json=LOG)
        assert "max-age=1," in (await client.get(URL)).headers["cache-control"]

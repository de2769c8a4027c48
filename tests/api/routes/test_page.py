"""`GET /` and the files of the page over HTTP; tests/web tests them in a browser."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import factory_logs
from factory_logs.db.engine import Database
from tests.api.conftest import assert_error, client_of, worker

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
WEB = Path(factory_logs.__file__).parent / "web"


def linked(page: str) -> list[str]:
    return re.findall(r'(?:href|src)="([^"]*/web/[^"]*)"', page)


async def test_a_browser_gets_the_page_and_can_revalidate_it(anonymous: httpx.AsyncClient) -> None:
    page = await anonymous.get("/", headers=HTML)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert (page.headers["cache-control"], page.headers["vary"]) == ("no-cache", "Accept")
    same = await anonymous.get("/", headers=HTML | {"If-None-Match": page.headers["etag"]})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", page.headers["etag"])
    head = await anonymous.head("/", headers=HTML)
    assert (head.status_code, head.content) == (200, b"")


async def test_its_policy_allows_only_its_own_files(anonymous: httpx.AsyncClient) -> None:
    page = await anonymous.get("/", headers=HTML)
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'", "script-src": "'self'", "style-src": "'self'", "img-src": "'self'",
        "connect-src": "'self'", "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'", "trusted-types": "'none'",
    }  # fmt: skip
    assert page.headers["x-content-type-options"] == "nosniff"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=", page.text)


async def test_each_file_of_the_page_is_served_and_cached_permanently(anonymous: httpx.AsyncClient) -> None:
    paths = linked((await anonymous.get("/", headers=HTML)).text)
    assert {path.rpartition("/")[2] for path in paths} == {
        file.name for file in WEB.iterdir() if file.name != "index.html"
    }
    for path in paths:
        asset = await anonymous.get(path)
        assert asset.status_code == 200, path
        assert asset.content == (WEB / path.rpartition("/")[2]).read_bytes()
        assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
        kind = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
        assert asset.headers["content-type"] == kind[path.rpartition(".")[2]]
        assert (await anonymous.get(path, headers={"If-None-Match": asset.headers["etag"]})).status_code == 304
        plain = await anonymous.get(path, headers={"Accept-Encoding": "identity"})
        assert (plain.content, asset.headers["content-encoding"]) == (asset.content, "gzip")
        assert "content-encoding" not in plain.headers
        assert plain.headers["etag"] != asset.headers["etag"]


async def test_no_other_file_is_served(anonymous: httpx.AsyncClient) -> None:
    folder = linked((await anonymous.get("/", headers=HTML)).text)[0].rpartition("/")[0]
    for path in (
        f"{folder}/index.html",
        f"{folder}/..%2f..%2fapp.py",
        f"{folder}/",
        "/web/0/main.js",
        "/web",
        f"{folder}/x.js",
    ):
        assert_error(await anonymous.get(path), 404)


async def test_a_client_that_accepts_no_html_gets_a_404(anonymous: httpx.AsyncClient) -> None:
    for accept in ("*/*", "application/json", ""):
        assert_error(await anonymous.get("/", headers={"Accept": accept}), 404)
    assert_error(await anonymous.post("/", headers=HTML), 405)


@pytest.fixture
async def without_page(database: Database, migrated_url: str) -> AsyncIterator[FastAPI]:
    async with worker(migrated_url, page_enabled=False) as app:
        yield app


async def test_a_setting_switches_the_page_off(without_page: FastAPI) -> None:
    async with client_of(without_page, None) as client:
        for method in ("GET", "POST", "OPTIONS"):
            assert_error(await client.request(method, "/", headers=HTML), 404)


async def test_behind_a_path_prefix_its_files_are_under_the_prefix(database: Database, migrated_url: str) -> None:
    async with worker(migrated_url, root_path="/logs") as app, client_of(app, None) as client:
        paths = linked((await client.get("/", headers=HTML)).text)
        assert paths
        assert all(path.startswith("/logs/web/") for path in paths)
        assert (await client.get(paths[0].removeprefix("/logs"))).status_code == 200

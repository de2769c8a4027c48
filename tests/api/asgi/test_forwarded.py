"""Behind a reverse proxy: which address, scheme and path prefix the service uses, and which proxies it trusts."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_network
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.types import Receive, Scope, Send

from factory_logs.api.asgi.forwarded import Forwarded
from factory_logs.db.engine import Database
from factory_logs.permissions import Level
from factory_logs.settings import Settings
from tests.api.conftest import worker

PROXY = "10.0.0.1"
CALLER = "203.0.113.7"
TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
LOG = {"app_name": "tiger", "timestamp": "2024-01-31"}
PREFIXED = {"X-Forwarded-Prefix": "/logs", "X-Forwarded-Proto": "https"}


@asynccontextmanager
async def from_peer(app: FastAPI, peer: str, token: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Token token={token}"} if token else {}
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://logs.test", headers=headers) as client:
        yield client


async def seen(peer: str, headers: list[tuple[str, str]], root_path: str = "") -> Scope:
    """Return the scope that the application receives."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)

    scope = {
        "type": "http", "scheme": "http", "client": (peer, 1), "path": "/v1/x", "raw_path": b"/v1/x",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
    }  # fmt: skip
    await Forwarded(app, TRUSTED, root_path)(scope, None, None)  # type: ignore[arg-type]
    assert scope["client"] == (peer, 1), "the server's own scope is changed"
    return scopes[0]


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        (PROXY, [CALLER], CALLER),
        (PROXY, [f"{CALLER}:4711"], CALLER),
        (PROXY, [f"1.2.3.4, {CALLER}"], CALLER),
        (PROXY, ["1.2.3.4", CALLER], CALLER),
        (PROXY, [f"1.2.3.4, {CALLER}, 10.9.9.9"], CALLER),
        (PROXY, ["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (PROXY, ["2001:db8::1"], "2001:db8::1"),
        (PROXY, ["[2001:db8::1]:80"], "2001:db8::1"),
        (PROXY, ["unknown"], PROXY),
        (PROXY, [f"{CALLER}, unknown, 10.9.9.9"], "10.9.9.9"),
        (PROXY, [""], PROXY),
        (PROXY, [], PROXY),
        (PROXY, ["1" * 10_000], PROXY),
        (f"::ffff:{PROXY}", [CALLER], CALLER),
        ("fd00::1", [CALLER], CALLER),
        (CALLER, ["1.2.3.4"], CALLER),
        ("127.0.0.1", ["1.2.3.4"], "127.0.0.1"),
    ],
)
async def test_the_clients_address_is_the_last_one_that_is_not_a_trusted_proxy(
    peer: str, forwarded: list[str], address: str
) -> None:
    scope = await seen(peer, [("X-Forwarded-For", value) for value in forwarded])
    assert scope["client"][0] == address


@pytest.mark.parametrize(
    ("peer", "sent", "root_path", "prefix"),
    [
        (PROXY, "/logs", "", "/logs"),
        (PROXY, "/a/b.c/", "", "/a/b.c"),
        (PROXY, "/logs", "/own", "/own"),
        (PROXY, "", "/own", "/own"),
        (PROXY, "/", "", ""),
        (PROXY, "logs", "", ""),
        (PROXY, "//evil.example", "", ""),
        (PROXY, "/a b", "", ""),
        (PROXY, "/a>; rel=x", "", ""),
        (PROXY, "/a, /b", "", ""),
        (CALLER, "/logs", "", ""),
        (CALLER, "/logs", "/own", "/own"),
    ],
)
async def test_the_prefix_comes_from_the_setting_or_a_trusted_proxy(
    peer: str, sent: str, root_path: str, prefix: str
) -> None:
    scope = await seen(peer, [("X-Forwarded-Prefix", sent)], root_path)
    assert (scope.get("root_path", ""), scope["path"]) == (prefix, f"{prefix}/v1/x")
    assert scope["raw_path"] == scope["path"].encode()


@pytest.mark.parametrize(
    ("peer", "sent", "scheme"),
    [(PROXY, "https", "https"), (PROXY, "HTTPS", "https"), (PROXY, "file", "http"), (CALLER, "https", "http")],
)
async def test_the_scheme_comes_from_a_trusted_proxy(peer: str, sent: str, scheme: str) -> None:
    assert (await seen(peer, [("X-Forwarded-Proto", sent)]))["scheme"] == scheme


async def test_links_begin_with_the_prefix_and_work(
    database: Database, migrated_url: str, tokens: dict[Level, str]
) -> None:
    async with (
        worker(migrated_url, trusted_proxies=TRUSTED) as app,
        from_peer(app, PROXY, tokens[Level.SYSTEM]) as client,
    ):
        client.headers.update(PREFIXED)
        posted = [await client.post("/v1/factory_logs", json=LOG) for _ in range(2)]
        assert [each.headers["Location"] for each in posted] == [
            f"https://logs.test/logs/v1/factory_logs/{number}" for number in (1, 2)
        ]
        repair = await client.post("/v1/repairs", json={"product_imei": "123456789012345"})
        assert repair.headers["Location"] == "https://logs.test/logs/v1/repairs/1"
        for query in ("results_per_page=1", "cursor=&results_per_page=1"):
            link = (await client.get(f"/v1/factory_logs?{query}")).headers["Link"]
            assert link.startswith("<https://logs.test/logs/v1/factory_logs?")
        single = await client.get("/v1/factory_logs", params={"q": '{"single": true, "limit": 1}'})
        assert single.headers["Location"] == "https://logs.test/logs/v1/factory_logs/1"
        assert (await client.get("/v1/factory_logs/1")).json() == posted[0].json()
        assert (await client.get("/v1/factory_logs/stats")).status_code == 200
        assert (await client.delete("/v1/factory_logs/1")).headers["Allow"] == "GET, HEAD, OPTIONS"
        assert (await client.get("/logs/v1/factory_logs/1")).status_code == 404, "the proxy takes the prefix off"


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["/logs", "/v1", "/docs"])
async def test_the_docs_page_loads_its_parts_under_the_prefix(
    database: Database, migrated_url: str, prefix: str
) -> None:
    async with worker(migrated_url, root_path=prefix) as app, from_peer(app, CALLER) as client:
        page = (await client.get("/docs")).text
        for path in ("/docs/assets/swagger-ui-bundle.js", "/docs/assets/swagger-ui.css", "/docs/openapi.json"):
            assert f"{prefix}{path}" in page
            assert (await client.get(path)).status_code == 200
        for path in ("/docs/openapi.json", "/openapi.json"):
            assert (await client.get(path)).json()["servers"] == [{"url": prefix}]
        assert (await client.get("/docs/assets/nothing")).status_code == 404


async def test_an_idempotency_key_is_the_same_with_and_without_the_proxy(
    database: Database, migrated_url: str, tokens: dict[Level, str]
) -> None:
    async with worker(migrated_url, trusted_proxies=TRUSTED) as app:
        results = []
        for content in (json.dumps(LOG), json.dumps([LOG])):
            for peer in (PROXY, CALLER):
                async with from_peer(app, peer, tokens[Level.SYSTEM]) as client:
                    headers = PREFIXED | {"Content-Type": "application/json", "Idempotency-Key": content}
                    results.append(await client.post("/v1/factory_logs", content=content, headers=headers))
    assert [each.status_code for each in results] == [201] * 4
    assert ["Idempotency-Replayed" in each.headers for each in results] == [False, True] * 2


async def test_failed_logins_are_counted_and_written_by_the_address_behind_a_trusted_proxy(
    database: Database, migrated_url: str, tmp_path: Path
) -> None:
    audit = tmp_path / "audit.log"
    credentials = {"username": "ann", "password": "wrong"}
    settings = {"audit_file": audit, "login_max_failures": 2}
    async with worker(migrated_url, trusted_proxies=TRUSTED, **settings) as app, from_peer(app, PROXY) as client:
        statuses = []
        for forwarded in ("1.1.1.1, 203.0.113.7", "2.2.2.2, 203.0.113.7", "3.3.3.3, 203.0.113.7", "203.0.113.8"):
            headers = {"X-Forwarded-For": forwarded}
            statuses.append((await client.post("/v1/auth/login", json=credentials, headers=headers)).status_code)
    assert statuses == [401, 401, 429, 401]
    addresses = [json.loads(line)["address"] for line in audit.read_text().splitlines()]
    assert addresses == ["203.0.113.7"] * 3 + ["203.0.113.8"]


@pytest.mark.parametrize("text", ["10.0.0.0/8", "10.0.0.1, ::1", " 127.0.0.1 ,", ""])
def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FACTORY_LOGS_TRUSTED_PROXIES", text)
    assert len(Settings().trusted_proxies) == len([part for part in text.split(",") if part.strip()])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("TRUSTED_PROXIES", "nginx", "'nginx' is not an IP address or a network"),
        ("TRUSTED_PROXIES", "10.0.0.1/8", "'10.0.0.1/8' is not"),
        ("TRUSTED_PROXIES", "*", "is not an IP address"),
        ("ROOT_PATH", "logs", "a path such as /logs"),
        ("ROOT_PATH", "/logs/", "without a slash at its end"),
        ("ROOT_PATH", "//host", "a path such as /logs"),
    ],
)
def test_an_invalid_proxy_setting_is_an_error_with_the_expected_format(
    monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    monkeypatch.setenv(f"FACTORY_LOGS_{name}", text)
    with pytest.raises(ValidationError, match=message.replace("*", r"\*")):
        Settings()

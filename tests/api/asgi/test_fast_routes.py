"""Fast routes: which signatures are rejected at declaration, and which paths FastAPI must route."""

from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Body, Cookie, Depends, FastAPI, Header, Query, Request
from starlette.responses import Response

from factory_logs.api.asgi.fast_routes import FastRoute, FastRoutes
from factory_logs.api.dependencies import Reader, ServicesDep, Writer
from factory_logs.app import ROUTERS


async def with_query(name: str) -> Response: ...
async def with_optional_query(name: Annotated[str | None, Query()] = None) -> Response: ...
async def with_header(host: Annotated[str, Header()]) -> Response: ...
async def with_cookie(session: Annotated[str, Cookie()]) -> Response: ...
async def with_body(record: Annotated[dict[str, int], Body()]) -> Response: ...
async def with_number(item_id: int) -> Response: ...
async def with_two(group: str, item_id: str) -> Response: ...
def own() -> int: ...
def own_with_query(services: ServicesDep, name: str) -> int: ...
def own_with_header(services: ServicesDep, host: Annotated[str, Header()]) -> int: ...
async def with_own_dependency(value: Annotated[int, Depends(own)]) -> Response: ...
async def with_query_in_a_dependency(value: Annotated[int, Depends(own_with_query)]) -> Response: ...
async def with_header_in_a_dependency(value: Annotated[int, Depends(own_with_header)]) -> Response: ...
async def with_all_that_may_be(request: Request, _: Writer, services: ServicesDep) -> Response: ...
async def with_a_segment(item_id: str, _: Reader) -> Response: ...


@pytest.mark.parametrize(
    ("path", "endpoint", "reason"),
    [
        ("/x", with_query, "parses its query, headers and body itself"),
        ("/x", with_optional_query, "parses its query, headers and body itself"),
        ("/x", with_header, "parses its query, headers and body itself"),
        ("/x", with_cookie, "parses its query, headers and body itself"),
        ("/x", with_body, "parses its query, headers and body itself"),
        ("/x", with_own_dependency, "cannot resolve the dependency value"),
        ("/x", with_query_in_a_dependency, "cannot resolve the dependency value"),
        ("/x", with_header_in_a_dependency, "cannot resolve the dependency value"),
        ("/x/{item_id}", with_number, "one path parameter, the last segment, as text"),
        ("/x/{group}/{item_id}", with_two, "one path parameter, the last segment, as text"),
        ("/x/{item_id}/y", with_a_segment, "one path parameter, the last segment, as text"),
        ("/x/a-{item_id}", with_a_segment, "one path parameter, the last segment, as text"),
    ],
)
def test_a_signature_that_a_fast_route_cannot_serve_is_refused_when_it_is_declared(
    path: str, endpoint: Callable[..., Any], reason: str
) -> None:
    with pytest.raises(TypeError, match=reason) as caught:
        APIRouter(route_class=FastRoute).add_api_route(path, endpoint, methods=["POST"])
    assert path in str(caught.value)


@pytest.mark.parametrize(("path", "endpoint"), [("/x", with_all_that_may_be), ("/x/{item_id}", with_a_segment)])
def test_a_signature_that_a_fast_route_can_serve_is_accepted(path: str, endpoint: Callable[..., Any]) -> None:
    APIRouter(route_class=FastRoute).add_api_route(path, endpoint)


@pytest.mark.parametrize(
    ("method", "path", "found"),
    [
        ("POST", "/v1/factory_logs", "/v1/factory_logs"),
        ("GET", "/v1/factory_logs", "/v1/factory_logs"),
        ("GET", "/v1/factory_logs/12", "/v1/factory_logs/{factory_log_id}"),
        ("GET", "/v1/factory_logs/abc", "/v1/factory_logs/{factory_log_id}"),
        ("GET", "/v1/factory_logs/stats", "/v1/factory_logs/stats"),
        ("GET", "/v1/factory_logs/", None),
        ("GET", "/v1/factory_logs/12/", None),
        ("GET", "/v1/factory_logs/12/34", None),
        ("DELETE", "/v1/factory_logs/12", None),
        ("OPTIONS", "/v1/factory_logs", None),
        ("GET", "/v1/auth/validate_user", None),
        ("GET", "/healthz", None),
        ("GET", "", None),
        ("GET", "*", None),
    ],
)
def test_a_fast_route_serves_only_its_own_path_and_method(method: str, path: str, found: str | None) -> None:
    route, _ = FastRoutes(ROUTERS).find(method, path)
    assert (None if route is None else route.path) == found


FAST = [("POST", "/v1/factory_logs"), ("GET", "/v1/factory_logs"), ("GET", "/v1/factory_logs/1")]


@pytest.mark.parametrize(("method", "path"), FAST)
async def test_a_refused_token_gets_the_same_response_as_from_fastapi(
    anonymous: httpx.AsyncClient, method: str, path: str
) -> None:
    for headers in ({}, {"Authorization": "Token token=unknown"}):
        fast = await anonymous.request(method, path, headers=headers)
        slow = await anonymous.get("/v1/auth/validate_user?username=x", headers=headers)
        assert fast.status_code == slow.status_code == 401
        assert fast.json().keys() == slow.json().keys()
        assert fast.json()["message"] == slow.json()["message"]
        assert fast.headers.keys() == slow.headers.keys()


@pytest.mark.parametrize(("method", "path"), FAST)
async def test_an_unexpected_error_gets_a_500_without_internal_details(
    app: FastAPI, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, method: str, path: str
) -> None:
    async def fail(*_: object, **__: object) -> Response:
        raise RuntimeError("secret of the inside")

    route, _ = app.dispatcher._app._routes.find(method, path)
    monkeypatch.setattr(route, "_endpoint", fail)
    response = await client.request(method, path)
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["request_id"] == response.headers["x-request-id"]

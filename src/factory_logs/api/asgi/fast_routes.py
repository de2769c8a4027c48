"""Routes on the hot path, which bypass FastAPI's routing.

FastAPI's routing, dependency solving, exit stacks and exception middleware take several times as long as storing a log:
see `python -m benchmarks.hot_path` (docs/explanation/hot-path.md). A FastRoute is declared like any other route, with
the same signature and OpenAPI. It resolves its dependencies once, at start, and is called by the dispatcher
(dispatcher.py).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from factory_logs.api.asgi.single_writes import ReadHead, reader_of
from factory_logs.api.dependencies import Require, authorization, get_services
from factory_logs.api.http.error_handlers import domain_error, unexpected_error
from factory_logs.api.services import Services
from factory_logs.errors import FactoryLogsError

Endpoint = Callable[..., Awaitable[Response]]


class FastRoute(APIRoute):
    """A route whose endpoint parses the request itself and returns a Response.

    The signature may contain the request, `services`, a permission (`Reader`, `Writer`), and one path parameter, which
    is the last segment as text. Raises TypeError for any other parameter.
    """

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        dependant = self.dependant
        if dependant.query_params or dependant.header_params or dependant.body_params or dependant.cookie_params:
            raise TypeError(f"{path}: a fast route parses its query, headers and body itself")
        self._endpoint = endpoint
        self.read_head = reader_of(endpoint)
        self._request_name = dependant.request_param_name
        self._permission: tuple[str, Require] | None = None
        self._services_names: list[str] = []
        for dependency in dependant.dependencies:
            assert dependency.name is not None  # noqa: S101 - route-level dependencies aside, each has a name
            if isinstance(dependency.call, Require):
                self._permission = (dependency.name, dependency.call)
            elif dependency.call is get_services:
                self._services_names.append(dependency.name)
            else:
                raise TypeError(f"{path}: a fast route cannot resolve the dependency {dependency.name}")
        self._path_name = _last_segment(path, dependant)

    @property
    def key(self) -> str:
        """The key in the dispatcher's table: the path, which ends with `/` if the last segment is a parameter."""
        return self.path if self._path_name is None else self.path.rpartition("/")[0] + "/"

    async def respond(self, scope: Scope, receive: Receive, services: Services, segment: str) -> Response:
        """Return the endpoint's response, or an error response if it raises. `segment` is the path parameter."""
        request = Request(scope, receive)
        arguments: dict[str, Any] = dict.fromkeys(self._services_names, services)
        if self._request_name is not None:
            arguments[self._request_name] = request
        if self._path_name is not None:
            arguments[self._path_name] = segment
        try:
            if self._permission is not None:
                name, permission = self._permission
                arguments[name] = await permission(request, services, authorization(scope))
            return await self._endpoint(**arguments)
        except FactoryLogsError as error:
            return domain_error(request, error)
        except ClientDisconnect:
            raise
        except Exception as error:  # noqa: BLE001 - a 500 is a bug, and still a response
            return unexpected_error(request, error)


def _last_segment(path: str, dependant: Dependant) -> str | None:
    """Return the name of the path parameter. Raises TypeError if it is not the whole last segment, as text."""
    params = dependant.path_params
    if not params:
        return None
    name = params[0].name
    if len(params) > 1 or not path.endswith(f"/{{{name}}}") or params[0].field_info.annotation is not str:
        raise TypeError(f"{path}: a fast route has at most one path parameter, the last segment, as text")
    return name


class FastRoutes:
    """The fast routes by method and path."""

    def __init__(self, routers: Sequence[APIRouter]) -> None:
        routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self._fast: Mapping[tuple[str, str], FastRoute] = {
            (method, route.key): route
            for route in routes
            if isinstance(route, FastRoute)
            for method in route.methods or ()
        }
        self._single_writes = {
            key: (route, route.read_head) for key, route in self._fast.items() if route.read_head is not None
        }
        # Routes of FastAPI that would match a fast route, such as `/v1/factory_logs/stats` and `/v1/factory_logs/{id}`.
        self._others = {
            (method, route.path)
            for route in routes
            if not isinstance(route, FastRoute)
            for method in route.methods or ()
        }

    def find_single_write(self, method: str, path: str) -> tuple[FastRoute, ReadHead] | None:
        """Return the fast route and its function that reads the heads of single writes, or None."""
        return self._single_writes.get((method, path))

    def find(self, method: str, path: str) -> tuple[FastRoute | None, str]:
        """Return the fast route and the last segment of the path, or None and "" if FastAPI must route the request."""
        route = self._fast.get((method, path))
        if route is not None and not path.endswith("/"):
            return route, ""
        base, slash, segment = path.rpartition("/")
        route = self._fast.get((method, base + slash))
        if route is None or not segment or (method, path) in self._others:
            return None, ""
        return route, segment

"""Hot routes, answered in front of FastAPI's routing.

Routing, dependency solving, the exit stacks and the exception middleware of FastAPI cost several times what storing a
log does (docs/hot-path.md). A DirectRoute is declared like any other route, with the same signature and so the same
OpenAPI; what its signature needs is worked out once, and the entrance (entrance.py) calls it.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope

from factory_logs.api.deps import Require, get_services
from factory_logs.api.errors import domain_error, unexpected_error
from factory_logs.api.services import Services
from factory_logs.errors import FactoryLogsError

Endpoint = Callable[..., Awaitable[Response]]
Solver = Callable[[Services], object]


class DirectRoute(APIRoute):
    """A route whose endpoint reads its request itself and returns a Response.

    Its signature may hold the request, `services`, a permission (`Reader`, `Writer`), dependencies that are made of
    `services` alone, and at most one path parameter, the last segment, as text. Raises TypeError for anything else.
    """

    def __init__(self, path: str, endpoint: Endpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        dependant = self.dependant
        if dependant.query_params or dependant.header_params or dependant.body_params or dependant.cookie_params:
            raise TypeError(f"{path}: a direct route reads its query, headers and body itself")
        self._endpoint = endpoint
        self._request_name = dependant.request_param_name
        self._permission: tuple[str, Require] | None = None
        self._solvers: dict[str, Solver] = {}
        for dependency in dependant.dependencies:
            assert dependency.name is not None  # noqa: S101 - route-level dependencies aside, each has a name
            if isinstance(dependency.call, Require):
                self._permission = (dependency.name, dependency.call)
            else:
                self._solvers[dependency.name] = _solver(path, dependency)
        self._path_name = next((param.name for param in dependant.path_params), None)

    @property
    def key(self) -> str:
        """Where the dispatcher finds the route: its path, with a trailing `/` for any last segment."""
        return self.path if self._path_name is None else self.path.rpartition("/")[0] + "/"

    async def answer(self, scope: Scope, receive: Receive, services: Services, segment: str) -> Response:
        """The endpoint's answer, or that of the error it raised; `segment` is the path's last one."""
        request = Request(scope, receive)
        arguments: dict[str, Any] = {name: solve(services) for name, solve in self._solvers.items()}
        if self._request_name is not None:
            arguments[self._request_name] = request
        if self._path_name is not None:
            arguments[self._path_name] = segment
        try:
            if self._permission is not None:
                name, permission = self._permission
                arguments[name] = await permission(request, services, _authorization(scope))
            return await self._endpoint(**arguments)
        except FactoryLogsError as error:
            return domain_error(request, error)
        except ClientDisconnect:
            raise  # nobody is there to be answered
        except Exception as error:  # noqa: BLE001 - a 500 is a bug, and yet it is answered
            return unexpected_error(request, error)


def _solver(path: str, dependency: Dependant) -> Solver:
    call = dependency.call
    if call is get_services:
        return lambda services: services
    inner = dependency.dependencies
    if call is None or [part.call for part in inner] != [get_services] or dependency.header_params:
        raise TypeError(f"{path}: a direct route cannot solve the dependency {dependency.name}")
    (name,) = (part.name for part in inner)
    return lambda services: call(**{str(name): services})


def _authorization(scope: Scope) -> str | None:
    for name, value in scope["headers"]:
        if name == b"authorization":
            return str(value.decode("latin-1"))
    return None


class DirectRoutes:
    """Finds the direct route of a request."""

    def __init__(self, routers: Sequence[APIRouter]) -> None:
        routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
        self._direct: Mapping[tuple[str, str], DirectRoute] = {
            (method, route.key): route
            for route in routes
            if isinstance(route, DirectRoute)
            for method in route.methods or ()
        }
        # A route such as `/v1/factory_logs/stats` is none of the last segments of `/v1/factory_logs/{id}`.
        self._others = {
            (method, route.path)
            for route in routes
            if not isinstance(route, DirectRoute)
            for method in route.methods or ()
        }

    def find(self, method: str, path: str) -> tuple[DirectRoute | None, str]:
        """The route and the path's last segment; None where FastAPI has to look."""
        route = self._direct.get((method, path))
        if route is not None and not path.endswith("/"):
            return route, ""
        base, slash, segment = path.rpartition("/")
        route = self._direct.get((method, base + slash))
        if route is None or not segment or (method, path) in self._others:
            return None, ""
        return route, segment

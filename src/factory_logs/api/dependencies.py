"""The dependencies that routes declare in their signatures, as Annotated aliases."""

from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader
from starlette.types import Scope

from factory_logs.api.services import Services
from factory_logs.permissions import CurrentUser, Level, check_permission

TOKEN = APIKeyHeader(
    name="Authorization",
    scheme_name="Token",
    description="Paste the token; `Token token=<token>`, `Token <token>` and `Bearer <token>` are accepted too. "
    "A token comes from `POST /v1/auth/login` or `factory-logs tokens issue`.",
    auto_error=False,
)


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


def authorization(scope: Scope) -> str | None:
    """Return the first Authorization header of a request."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            return str(value.decode("latin-1"))
    return None


ServicesDep = Annotated[Services, Depends(get_services)]


class Require:
    """A dependency that requires a permission level or a higher one (docs/reference/http-api.md#authentication)."""

    def __init__(self, level: Level, *, stores_logs: bool = False) -> None:
        self.level = level
        self._stores_logs = stores_logs

    async def __call__(
        self, request: Request, services: ServicesDep, authorization: Annotated[str | None, Security(TOKEN)]
    ) -> CurrentUser:
        """Return the user. Raises UnauthenticatedError without a valid token, ForbiddenError without the permission."""
        user = services.authenticator.cached(authorization) if authorization else None
        if user is None:
            user = await services.authenticator.authenticate(authorization)
        request.scope["state"]["user"] = user.username
        self.check(user)
        return user

    def check(self, user: CurrentUser) -> None:
        """Raise ForbiddenError if the user does not have the permission."""
        check_permission(user, self.level, stores_logs=self._stores_logs)


STORES_LOGS = Require(Level.SYSTEM, stores_logs=True)
Reader = Annotated[CurrentUser, Depends(Require(Level.OVERVIEW))]
Writer = Annotated[CurrentUser, Depends(Require(Level.SYSTEM))]
LogWriter = Annotated[CurrentUser, Depends(STORES_LOGS)]

"""The routers' dependencies, as Annotated aliases: a route says what it needs in its signature."""

from typing import Annotated, cast

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyHeader

from factory_logs.api.services import Services
from factory_logs.db.records import RecordRepository
from factory_logs.db.repairs import RepairRepository
from factory_logs.query import FACTORY_LOGS, REPAIRS
from factory_logs.security.authenticator import CurrentUser
from factory_logs.security.levels import Level
from factory_logs.security.permission import check

TOKEN = APIKeyHeader(
    name="Authorization",
    scheme_name="Token",
    description="`Token token=<token>`; a token comes from `POST /v1/auth/login` or `factory-logs tokens issue`.",
    auto_error=False,
)


def get_services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


ServicesDep = Annotated[Services, Depends(get_services)]


class Require:
    """The permission checker: a dependency that lets a request in only at a level or above (SPEC 3)."""

    def __init__(self, level: Level) -> None:
        self.level = level

    async def __call__(
        self, request: Request, services: ServicesDep, authorization: Annotated[str | None, Security(TOKEN)]
    ) -> CurrentUser:
        """Raises UnauthenticatedError without a valid token, ForbiddenError below the level."""
        user = services.authenticator.cached(authorization) if authorization else None
        if user is None:
            user = await services.authenticator.authenticate(authorization)
        request.scope["state"]["user"] = user.username
        check(user, self.level)
        return user


Reader = Annotated[CurrentUser, Depends(Require(Level.OVERVIEW))]
Writer = Annotated[CurrentUser, Depends(Require(Level.SYSTEM))]


def get_logs(services: ServicesDep) -> RecordRepository:
    return RecordRepository(services.database, FACTORY_LOGS.table)


def get_repairs(services: ServicesDep) -> RecordRepository:
    return RecordRepository(services.database, REPAIRS.table)


def get_repair_writes(services: ServicesDep) -> RepairRepository:
    return RepairRepository(services.database)


Logs = Annotated[RecordRepository, Depends(get_logs)]
Repairs = Annotated[RecordRepository, Depends(get_repairs)]
RepairWrites = Annotated[RepairRepository, Depends(get_repair_writes)]

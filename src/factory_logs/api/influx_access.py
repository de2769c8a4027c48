"""Who writes, in all ways that InfluxDB's clients tell it, and what their query string asks (SPEC 8).

The token comes as `Token <token>` (2.x; in 1.8 also `Token user:token`), `Token token=<token>`, `Bearer <token>`, as
the password of basic authentication, or as `p` of the query string. A user's name is not looked at: the token says it.
"""

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import parse_qsl

from fastapi import Request

from factory_logs.api.services import Services
from factory_logs.errors import BadRequestError, UnauthenticatedError
from factory_logs.influx.line_protocol import PRECISIONS
from factory_logs.security.authenticator import CurrentUser
from factory_logs.security.levels import Level
from factory_logs.security.permission import check

MAX_PARAMETERS = 50
USUAL_QUERY_BYTES = 256


def parameters(request: Request) -> Mapping[str, str]:
    """The query string; of two of one name the first counts, as in InfluxDB. Raises BadRequestError."""
    query: bytes = request.scope["query_string"]
    return _usual_parameters(query) if len(query) <= USUAL_QUERY_BYTES else _parameters(query)


def _parameters(query: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise BadRequestError(f"there are more than {MAX_PARAMETERS} query parameters") from None
    return MappingProxyType(dict(reversed(pairs)))


_usual_parameters = lru_cache(maxsize=256)(_parameters)
"""A writer's query string is the same each time."""


def unit_of(asked: Mapping[str, str]) -> int:
    """The unit of the lines' times, in nanoseconds. Raises BadRequestError."""
    precision = asked.get("precision") or "ns"
    if precision not in PRECISIONS:
        raise BadRequestError(f"invalid precision {precision!r} (use ns, us, ms, s, m or h)")
    return PRECISIONS[precision]


async def writer(request: Request, services: Services, asked: Mapping[str, str]) -> CurrentUser:
    """Raises UnauthenticatedError without a valid token, ForbiddenError for one that may not write."""
    user = await _user(services, request.headers.get("authorization"), asked)
    request.scope["state"]["user"] = user.username
    check(user, Level.SYSTEM)
    return user


async def _user(services: Services, authorization: str | None, asked: Mapping[str, str]) -> CurrentUser:
    authenticator = services.authenticator
    if asked.get("p"):
        return await authenticator.authenticate_token(asked["p"])
    if authorization is None:
        raise UnauthenticatedError("unable to parse authentication credentials: there is no token")
    known = authenticator.cached(authorization)
    if known is not None:
        return known
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "basic":
            return await authenticator.authenticate_token(_password(value))
        case "bearer":
            return await authenticator.authenticate_token(value.strip())
        case "token" if ":" in value:
            return await authenticator.authenticate_token(value.partition(":")[2].strip())
    return await authenticator.authenticate(authorization)


def _password(encoded: str) -> str:
    try:
        return base64.b64decode(encoded.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, ValueError):
        raise UnauthenticatedError(
            "unable to parse authentication credentials: not valid basic authentication"
        ) from None

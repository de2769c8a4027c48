"""Parse the parameters and the credentials in the requests of InfluxDB's clients
(docs/reference/http-api.md#influxdbs-calls).

The token may have any form that other calls accept (security/tokens.py). It may also be sent as `Token user:token`
(InfluxDB 1.8), as the password of basic authentication, or as the parameter `p`. The username is ignored, because the
token identifies the user.
"""

import base64
import binascii
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from urllib.parse import parse_qsl

from factory_logs.errors import BadRequestError, UnauthenticatedError
from factory_logs.influxdb.line_protocol import PRECISIONS
from factory_logs.permissions import CurrentUser
from factory_logs.security.authenticator import Authenticator

MAX_PARAMETERS = 50
CACHED_QUERY_BYTES = 256


def parse_parameters(query: bytes) -> Mapping[str, str]:
    """Return the parameters of the query string. If a name occurs twice, the first value is used, as in InfluxDB.

    Raises BadRequestError.
    """
    return _cached_parameters(query) if len(query) <= CACHED_QUERY_BYTES else _parse_parameters(query)


def _parse_parameters(query: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise BadRequestError(f"there are more than {MAX_PARAMETERS} query parameters") from None
    return MappingProxyType(dict(reversed(pairs)))


_cached_parameters = lru_cache(maxsize=256)(_parse_parameters)
"""Cached, because a client sends the same query string each time."""


def time_unit(parameters: Mapping[str, str]) -> int:
    """Return the unit of times in the lines, in nanoseconds. Raises BadRequestError."""
    precision = parameters.get("precision") or "ns"
    if precision not in PRECISIONS:
        raise BadRequestError(f"invalid precision {precision!r} (use ns, us, ms, s, m or h)")
    return PRECISIONS[precision]


async def authenticate(
    authenticator: Authenticator, authorization: str | None, parameters: Mapping[str, str]
) -> CurrentUser:
    """Return the user of the token. Raises UnauthenticatedError."""
    if parameters.get("p"):
        return await authenticator.authenticate_token(parameters["p"])
    if authorization is None:
        raise UnauthenticatedError("unable to parse authentication credentials: there is no token")
    cached = authenticator.cached(authorization)
    if cached is not None:
        return cached
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "basic":
            return await authenticator.authenticate_token(_password(value))
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

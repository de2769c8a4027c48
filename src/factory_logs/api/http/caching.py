"""HTTP caching: `ETag`, `If-None-Match` and `Cache-Control`."""

import hashlib
from collections.abc import Mapping

from fastapi import Request
from starlette.responses import Response

from factory_logs.api.http.responses import JsonResponse

DIGEST_BYTES = 12


def record_response(request: Request, body: bytes, seconds: int) -> Response:
    """Return the JSON of a record, which never changes, or a 304 if the client already has it.

    Only the client itself may cache it (`private`), and only for the same token (`Vary`). A shared cache would also
    send the record to callers without the permission and to revoked tokens.
    """
    headers = {
        "ETag": strong_etag(body),
        "Cache-Control": f"private, max-age={seconds}, immutable",
        "Vary": "Authorization",
    }
    return not_modified(request.headers.get("if-none-match"), headers) or JsonResponse(body, headers=headers)


def strong_etag(body: bytes) -> str:
    """Return an ETag that identifies exactly these bytes."""
    return f'"{hashlib.blake2b(body, digest_size=DIGEST_BYTES).hexdigest()}"'


def not_modified(if_none_match: str | None, headers: Mapping[str, str]) -> Response | None:
    """Return a 304 with these headers if `If-None-Match` contains their `ETag`, else None.

    The comparison is weak (RFC 9110), because a proxy may have marked the ETag as weak.
    """
    if if_none_match is None:
        return None
    tags = (tag.strip().removeprefix("W/") for tag in if_none_match.split(","))
    if if_none_match.strip() == "*" or headers["ETag"] in tags:
        return Response(status_code=304, headers=dict(headers))
    return None

"""Answers that never change, so that a client need not ask twice.

Only the client itself may keep one (`private`), and shows it again to the same token alone (`Vary`): a cache between us
would answer those who may not read, and a token that has ended. What a client has seen it may have kept anyway.
"""

import hashlib

from fastapi import Request
from starlette.responses import Response

from factory_logs.api.answers import JsonAnswer

DIGEST_BYTES = 12


def unchanging(request: Request, body: bytes, seconds: int) -> Response:
    """JSON with a strong ETag; a 304 where the caller says it has that already."""
    etag = f'"{hashlib.blake2b(body, digest_size=DIGEST_BYTES).hexdigest()}"'
    headers = {
        "ETag": etag,
        "Cache-Control": f"private, max-age={seconds}, immutable",
        "Vary": "Authorization",
    }
    known = request.headers.get("if-none-match")
    if known is not None and _names(known, etag):
        return Response(status_code=304, headers=headers)
    return JsonAnswer(body, headers=headers)


def _names(known: str, etag: str) -> bool:
    """By the weak comparison that RFC 9110 asks for: a proxy may have marked it so."""
    return known.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in known.split(","))

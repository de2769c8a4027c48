"""Create, issue, hash and identify tokens, and parse the Authorization header.

The database stores only the hash of a token. Only the functions that issue a token see its text.
"""

import hashlib
import re
import secrets
import string
from dataclasses import dataclass
from datetime import datetime

from factory_logs.db.engine import Database
from factory_logs.db.tokens import TokenRepository
from factory_logs.errors import UnauthenticatedError

TOKEN_LENGTH = 64
SCHEMES = ("token", "bearer")
"""The accepted schemes of the Authorization header, in lower case."""
_ALPHABET = string.ascii_letters + string.digits
_SENDABLE = re.compile(r"[!#-+\--~]+")
"""Visible ASCII without comma and double quote, which separate and quote header values."""


def new_token() -> str:
    """Return a new token: 64 random characters of A-Z, a-z, 0-9 (381 bits)."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_LENGTH))


def hash_token(token: str) -> bytes:
    """Return the SHA-256 under which a token is stored. A slow hash would add nothing, because tokens are random."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@dataclass(frozen=True, slots=True)
class SlidingToken:
    """The text of a new token, and the end of the token if it is not used (UTC without zone). The text cannot be read
    again later."""

    token: str
    expires_at: datetime


async def issue_token(
    database: Database,
    user_id: int,
    *,
    expires_at: datetime | None,
    label: str | None = None,
    only_write: bool = False,
) -> str:
    """Issue a token that ends at `expires_at` (UTC without zone), or never, and return its text.

    Raises UnauthenticatedError if the user is disabled or was just deleted, DatabaseUnavailableError.
    """
    token = new_token()
    repository = TokenRepository(database)
    if not await repository.issue(
        hash_token(token), user_id, expires_at=expires_at, label=label, only_write=only_write
    ):
        raise _disabled_user()
    return token


async def issue_sliding_token(
    database: Database, user_id: int, *, idle_seconds: int, label: str | None = None, only_write: bool = False
) -> SlidingToken:
    """Issue a token that ends `idle_seconds` after its last use.

    Raises UnauthenticatedError if the user is disabled or was just deleted, DatabaseUnavailableError.
    """
    token = new_token()
    repository = TokenRepository(database)
    end = await repository.issue_sliding(
        hash_token(token), user_id, idle_seconds=idle_seconds, label=label, only_write=only_write
    )
    if end is None:
        raise _disabled_user()
    return SlidingToken(token, end)


def _disabled_user() -> UnauthenticatedError:
    return UnauthenticatedError("The user is disabled or was deleted.")


def short_hash(token: str) -> str:
    """Return the short id of a token for audit lines and lists."""
    return short_name(hash_token(token))


def short_name(token_hash: bytes) -> str:
    """Return the short id of the token with this hash. It is long enough to find the token's row."""
    return token_hash.hex()[:16]


def parse_authorization(header: str) -> str | None:
    """Return the token in an Authorization header, or None. Never raises.

    Accepts `Token token=<token>`, `Token <token>`, `Bearer <token>` and the bare token, which Swagger UI sends if a
    token is pasted into Authorize. The token may be quoted.
    """
    scheme, _, value = header.strip().replace("\t", " ").partition(" ")
    if scheme.lower() in SCHEMES:
        value = value.strip()
    elif not value:
        value = scheme
    else:
        return None
    name, equals, named_value = value.partition("=")
    if equals and name.rstrip().lower() == "token":
        value = named_value.lstrip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return value if _SENDABLE.fullmatch(value) else None

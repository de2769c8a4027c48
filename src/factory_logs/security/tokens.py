"""What a token looks like, how it is kept, and how it stands in the Authorization header (SPEC 3)."""

import hashlib
import re
import secrets
import string

TOKEN_LENGTH = 64
_ALPHABET = string.ascii_letters + string.digits
_SENDABLE = re.compile(r"[!#-+\--~]+")
"""Visible ASCII without the comma and the double quote, which part and enclose header values."""


def new_token() -> str:
    """A fresh token: 64 random characters of A-Z, a-z, 0-9 (381 bits)."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_LENGTH))


def hash_token(token: str) -> bytes:
    """The SHA-256 under which a token is stored; a slow hash would protect nothing that is this random."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def short_hash(token: str) -> str:
    """What names a token where it must not be told: enough to find its row by."""
    return hash_token(token).hex()[:16]


def parse_authorization(header: str) -> str | None:
    """The token of an Authorization header, None where it holds none. Never raises.

    Reads `Token token=<token>`, the token quoted or not, and InfluxDB 2's `Token <token>` (SPEC 3 and 8).
    """
    scheme_and_value = header.split(None, 1)
    if len(scheme_and_value) != 2 or scheme_and_value[0].lower() != "token":
        return None
    value = scheme_and_value[1].strip()
    name, equals, named_value = value.partition("=")
    if equals and name.rstrip().lower() == "token":
        value = named_value.lstrip()
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return value if _SENDABLE.fullmatch(value) else None

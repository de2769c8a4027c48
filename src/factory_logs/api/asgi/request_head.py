"""Check the head of a request by rules of RFC 9112 that neither uvicorn nor its parser enforces: one Host header,
HTTP/1.1 or 1.0, absolute-form targets."""

import re
from collections.abc import Sequence
from urllib.parse import unquote

import httptools
from uvicorn._types import HTTPScope

_VERSIONS = ("1.1", "1.0")
_HOST = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=%:\[\]-]*")
_INVALID_URL = "The URL is not valid: percent-encode (RFC 3986) each character that is not ASCII, and each space"


class HeadError(Exception):
    """The head of a request is invalid. The message is for the client."""


def check_version_and_host(version: str, hosts: Sequence[bytes]) -> None:
    """Require a known version, and a valid Host header (RFC 9112, 3.2). `hosts` are the values of all Host headers."""
    if version not in _VERSIONS:
        raise HeadError(f"HTTP/{version} is not supported; use HTTP/1.1 or HTTP/1.0")
    if len(hosts) > 1:
        raise HeadError("The request has more than one Host header")
    if not hosts:
        if version == "1.1":
            raise HeadError("The request has no Host header; HTTP/1.1 needs one")
    elif not _HOST.fullmatch(hosts[0]):
        raise HeadError("The Host header is not a host with an optional port")


def read_absolute_form(target: bytes) -> tuple[bytes, bytes]:
    """Return the path with the query, and the host, of a target such as `http://host/path` (RFC 9112, 3.2.2)."""
    url = httptools.parse_url(target)
    if url.schema.lower() not in (b"http", b"https") or url.userinfo:
        raise HeadError("The target of the request must be a path, or an http or https URL without user")
    host = b"[%s]" % url.host if b":" in url.host else url.host
    authority = b"%s:%d" % (host, url.port) if url.port else host
    return (url.path or b"/") + (b"?" + url.query if url.query else b""), authority


def set_target(scope: HTTPScope, method: bytes, version: str, target: bytes) -> None:
    """Write what the request line says into the scope."""
    url = httptools.parse_url(target)
    path = url.path.decode("ascii")
    scope["method"] = method.decode("ascii")
    scope["http_version"] = version
    scope["path"] = unquote(path) if "%" in path else path
    scope["raw_path"] = url.path
    scope["query_string"] = url.query or b""


def reason_of(error: httptools.HttpParserError) -> str:
    """Return why a request cannot be read, for the client. An error of a callback is the context of the parser's."""
    if isinstance(error, httptools.HttpParserInvalidURLError) or isinstance(
        error.__context__, httptools.HttpParserInvalidURLError
    ):
        return _INVALID_URL
    if isinstance(error.__context__, HeadError):
        return str(error.__context__)
    return f"The request is not valid HTTP/1.1: {error}"

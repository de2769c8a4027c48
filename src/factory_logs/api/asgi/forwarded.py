"""Read the headers of a reverse proxy: the client's address, the scheme and the path prefix.

These headers are accepted only from the proxies in `FACTORY_LOGS_TRUSTED_PROXIES`, because any client can send them.
The app contains this layer only if that setting or `FACTORY_LOGS_ROOT_PATH` is set.
"""

from collections.abc import Callable
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import cast

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn._types import HTTPScope

from factory_logs.api.http.exchange import Exchange
from factory_logs.settings import is_path_prefix

_SCHEMES = ("http", "https")
_log = structlog.get_logger(__name__)


class Forwarded:
    """Restores the client's address, scheme and path prefix from the headers of a trusted proxy.

    The proxy has removed the prefix from the path. The prefix becomes ASGI's `root_path` and, as ASGI requires, the
    beginning of `path`.
    """

    def __init__(self, app: ASGIApp, trusted: tuple[IPv4Network | IPv6Network, ...], root_path: str) -> None:
        self._app = app
        self._trusted = trusted
        self._root_path = root_path
        self._is_trusted = lru_cache(maxsize=1024)(self._is_in_trusted_network)
        self._warned = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(self._restored(scope), receive, send)

    def start_without_task(self, start: Callable[[Exchange], bool], exchange: Exchange) -> bool:
        """Call `start` for the request with its restored scope."""
        received = exchange.scope
        exchange.scope = cast(HTTPScope, self._restored(cast(Scope, received)))
        if start(exchange):
            return True
        exchange.scope = received
        return False

    def _restored(self, scope: Scope) -> Scope:
        scope = {**scope}
        prefix = self._root_path
        client = scope.get("client")
        if client and self._is_trusted(client[0]):
            values = _values(scope)
            if address := self._caller(values.get(b"x-forwarded-for", "")):
                scope["client"] = (address, 0)
            scheme = values.get(b"x-forwarded-proto", "").partition(",")[0].strip().lower()
            if scheme in _SCHEMES:
                scope["scheme"] = scheme
            prefix = prefix or self._prefix(values.get(b"x-forwarded-prefix", ""))
        if prefix:
            scope["root_path"] = prefix
            scope["path"] = prefix + scope["path"]
            scope["raw_path"] = prefix.encode() + scope["raw_path"]
        return scope

    def _caller(self, forwarded: str) -> str | None:
        """Return the client's address: the last address that is not a trusted proxy, because each proxy appends the
        address of its caller.

        A client may have sent addresses before this address, so these are ignored. Return None if a proxy sent an
        invalid address.
        """
        address = None
        for part in reversed(forwarded.split(",")):
            found = _address(part.strip())
            if found is None:
                break
            address = found
            if not self._is_trusted(address):
                break
        return address

    def _prefix(self, sent: str) -> str:
        prefix = sent.strip().rstrip("/")
        if is_path_prefix(prefix):
            return prefix
        if not self._warned:
            self._warned = True
            _log.warning("X-Forwarded-Prefix of a trusted proxy is not a path prefix and is ignored", sent=sent[:100])
        return ""

    def _is_in_trusted_network(self, address: str) -> bool:
        try:
            parsed = ip_address(address)
        except ValueError:
            return False
        parsed = getattr(parsed, "ipv4_mapped", None) or parsed
        return any(parsed in network for network in self._trusted)


def _values(scope: Scope) -> dict[bytes, str]:
    """Return the forwarded headers. Several headers with one name are joined into a list (RFC 9110, 5.3)."""
    values: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name.startswith(b"x-forwarded-"):
            text = value.decode("latin-1")
            values[name] = f"{values[name]},{text}" if name in values else text
    return values


def _address(text: str) -> str | None:
    """Return the address without its port, from `192.0.2.1:80`, `[2001:db8::1]:80` or an address without a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return str(ip_address(text))
    except ValueError:
        return None

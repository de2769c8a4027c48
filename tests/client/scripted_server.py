"""A server with scripted responses and a sender that a test steps by hand, without a network."""

import gzip
import json
import operator
import random
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import httpx
import zstandard

from factory_logs.client.delivery import ServerLink
from factory_logs.client.outbox import Outbox
from factory_logs.client.retry import Backoff
from factory_logs.client.sender import Sender
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Spool
from factory_logs.client.token_source import FixedToken, TokenSource

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]
NOW = 1_700_000_000.0
REQUEST_ID = "the id of the request"
PORTAL = "<h1>Sign in to the guest network</h1>"


class Server:
    """Sends the scripted responses, and then stores every request, once for each key."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.requests: list[httpx.Request] = []
        self.stored: list[str] = []
        self.used_keys: set[str] = set()
        self.known: list[dict[str, object]] = []
        self.now = NOW
        self.is_portal = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        response = self._respond(request)
        response.headers.setdefault("Date", formatdate(self.now, usegmt=True))
        if REQUEST_ID.encode() in response.content:
            response = httpx.Response(
                response.status_code,
                headers={name: value for name, value in response.headers.items() if name != "content-length"},
                content=response.content.replace(REQUEST_ID.encode(), request.headers["X-Request-ID"].encode()),
            )
        return response

    def _respond(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/healthz":
            return httpx.Response(200, html=PORTAL) if self.is_portal else httpx.Response(200, json={"status": "ok"})
        if request.method == "GET":
            found = self.found(request)
            return (
                error(403, "the token only stores logs")
                if found is None
                else httpx.Response(200, json={"objects": found})
            )
        self.requests.append(request)
        if not self.script:
            return self.store(request)
        response = self.script.pop(0)
        if isinstance(response, Exception):
            raise response
        return response if isinstance(response, httpx.Response) else response(request)

    def store(self, request: httpx.Request) -> httpx.Response:
        lines = body_of(request).decode().splitlines()
        if request.headers["idempotency-key"] not in self.used_keys:
            self.stored += lines
        self.used_keys.add(request.headers["idempotency-key"])
        return httpx.Response(201, json={"num_created": len(lines)})

    def found(self, request: httpx.Request) -> list[dict[str, object]] | None:
        """Return the stored logs that q selects, all on the first page, or None if the token may not read."""
        filters = json.loads(request.url.params["q"])["filters"]
        operators: dict[str, Callable[[Any, Any], bool]] = {"==": operator.eq, ">=": operator.ge}
        return [
            log
            for log in self.known
            if request.url.params["page"] == "1"
            and all(operators[one["op"]](log.get(one["name"]), one["val"]) for one in filters)
        ]

    @property
    def keys(self) -> list[str]:
        return [request.headers["idempotency-key"] for request in self.requests]


def body_of(request: httpx.Request) -> bytes:
    match request.headers.get("content-encoding"):
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(request.read())
        case "gzip":
            return gzip.decompress(request.read())
        case _:
            return request.read()


def error(status: int, message: str = "no", **more: object) -> httpx.Response:
    """Return an error of this API; the server adds the id of the request."""
    return httpx.Response(status, json={"message": message, "request_id": REQUEST_ID, **more})


def refusal(status: int, *, is_key_used: bool, **more: object) -> httpx.Response:
    """Return an error of this API after the server has looked for the request's key."""
    response = error(status, **more)
    response.headers["Idempotency-Key-Used"] = str(is_key_used).lower()
    return response


def foreign(status: int, **more: object) -> httpx.Response:
    """Return an error of a gateway with the same members as ours, such as Kong's."""
    return httpx.Response(status, json={"message": "Request size limit exceeded", "request_id": "f" * 32, **more})


def sender_of(
    spool: Spool,
    server: Server,
    settings: ClientSettings | None = None,
    credentials: TokenSource | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Sender:
    settings = settings or ClientSettings()
    link = ServerLink("http://logs.test/", credentials or FixedToken("t"), settings, httpx.MockTransport(server))
    return Sender(Outbox(spool.file), link, settings, Backoff(1.0, 8.0, random.Random(1)), clock)


def put(spool: Spool, count: int, start: int = 0) -> list[str]:
    lines = [
        json.dumps({"app_name": "a", "timestamp": "2024-01-01 00:00:00", "fields": {"n": n}})
        for n in range(start, start + count)
    ]
    spool.put([line.encode() for line in lines])
    return lines

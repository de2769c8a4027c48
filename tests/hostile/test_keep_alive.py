"""Every endpoint over a real socket: a response ends where its framing says, and the next request gets its own
response.

In-process tests cannot check this, because the server frames the responses.
"""

import itertools
import json
from dataclasses import dataclass

import pytest

from factory_logs.app import ROUTERS
from factory_logs.db.engine import Database
from factory_logs.db.users import UserRepository
from factory_logs.security.tokens import issue_token
from tests.hostile.conftest import Target

LOG = {"app_name": "tiger", "timestamp": "2024-01-31"}
PATHS = sorted({route.path for router in ROUTERS for route in router.routes})  # type: ignore[attr-defined]
LIMIT_SECONDS = 30
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ENDLESS = {("GET", "/v1/factory_logs/tail")}


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection that is reused for all requests. Each response is read by its own framing (RFC 9112, 6.3)."""

    def __init__(self, target: Target) -> None:
        self._socket = target.connect()
        self._received = b""
        self._numbers = itertools.count()
        self._token = target.token

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def request(self, method: str, target: str, body: bytes = b"", **headers: str) -> Response:
        """Send a request and return its response; its id shows that it is the response to this request."""
        request_id = f"request-{next(self._numbers)}"
        lines = [f"{method} {target} HTTP/1.1", "Host: x", f"X-Request-ID: {request_id}"]
        sent = {"Authorization": f"Token token={self._token}", "Content-Type": "application/json"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines += [f"{name}: {value}" for name, value in sent.items() if value]
        self._socket.sendall("\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body)
        head = self._until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        found = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        status = int(head[0].removeprefix("HTTP/1.1 ")[:3])
        assert found["x-request-id"] == request_id
        return Response(status, found, b"" if method == "HEAD" else self._body(status, found))

    def _body(self, status: int, headers: dict[str, str]) -> bytes:
        if status in (204, 304):
            return b""
        if headers.get("transfer-encoding") != "chunked":
            return self._exactly(int(headers["content-length"]))
        chunks = []
        while size := int(self._until(b"\r\n"), 16):
            chunks.append(self._exactly(size))
            assert self._exactly(2) == b"\r\n"
        assert self._exactly(2) == b"\r\n"
        return b"".join(chunks)

    def _until(self, end: bytes) -> bytes:
        while end not in self._received:
            self._more()
        found, _, self._received = self._received.partition(end)
        return found

    def _exactly(self, size: int) -> bytes:
        while len(self._received) < size:
            self._more()
        found, self._received = self._received[:size], self._received[size:]
        return found

    def _more(self) -> None:
        data = self._socket.recv(65536)
        assert data, "the connection was closed"
        self._received += data

    def check(self) -> None:
        """Check that the connection serves another request, and that no unexpected bytes arrive."""
        assert self.request("GET", "/ping").status == 204
        assert self.request("GET", "/healthz").status == 200
        self._socket.setblocking(False)
        with pytest.raises(BlockingIOError):
            self._socket.recv(1)
        self._socket.setblocking(True)
        assert self._received == b""


@pytest.fixture
async def other_token(target: Target, database: Database) -> str:
    """Return another token of the user, because a logout ends the token of its request."""
    user = await UserRepository(database).get_by_name("mallory")
    assert user is not None
    return await issue_token(database, user.user_id, expires_at=None)


def stored_id(target: Target) -> int:
    with target.client() as client:
        stored: int = client.post("/v1/factory_logs", json=[LOG] * 20).json()["first_id"]
        return stored


@pytest.mark.parametrize("with_token", [True, False], ids=["token", "no token"])
@pytest.mark.parametrize("path", PATHS)
def test_every_call_leaves_the_connection_open_for_the_next_request(
    target: Target, other_token: str, path: str, with_token: bool
) -> None:
    asked = path.replace("{factory_log_id}", str(stored_id(target))).replace("{repair_id}", "1")
    authorization = {"Authorization": f"Token token={other_token}" if with_token else ""}
    with Connection(target) as connection:
        for method in METHODS:
            if with_token and (method, path) in ENDLESS:
                continue
            for body in (b"", b"{}", json.dumps(LOG).encode()):
                response = connection.request(method, asked, body, **authorization)
                assert response.status < 500
                connection.check()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/v1/factory_logs", {"Accept": "application/x-ndjson"}),
        ("/v1/factory_logs", {"Accept": "text/csv"}),
        ("/v1/factory_logs", {"Accept": "text/csv", "Accept_Encoding": "gzip"}),
        ("/v1/factory_logs?results_per_page=100", {"Accept_Encoding": "zstd"}),
        ("/v1/factory_logs?cursor=", {}),
        ("/v1/factory_logs/tail?last_event_id=x", {}),
        ("/v1/factory_logs/stats?bucket=1d", {"Accept_Encoding": "gzip"}),
        ("/v1/factory_logs/0", {}),
        ("/docs", {}),
        ("/docs/assets/swagger-ui.css", {}),
        ("/docs/assets/nothing", {}),
        ("/openapi.json", {}),
        ("/metrics", {}),
        ("/nothing", {}),
    ],
)
def test_every_kind_of_response_leaves_the_connection_open(
    target: Target, method: str, path: str, headers: dict[str, str]
) -> None:
    stored_id(target)
    with Connection(target) as connection:
        response = connection.request(method, path, **headers)
        connection.check()
        again = connection.request("GET", path, **headers)
        assert again.status == (404 if "nothing" in path or path.endswith("/0") else 400 if "=x" in path else 200)
        assert (again.status, again.headers["content-type"]) == (response.status, response.headers["content-type"])
        connection.check()


def test_head_of_the_endless_tail_ends(target: Target) -> None:
    with Connection(target) as connection:
        response = connection.request("HEAD", "/v1/factory_logs/tail")
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
        connection.check()


def test_a_304_leaves_the_connection_open(target: Target) -> None:
    with Connection(target) as connection:
        path = f"/v1/factory_logs/{stored_id(target)}"
        etag = connection.request("GET", path).headers["etag"]
        for method in ("GET", "HEAD"):
            assert connection.request(method, path, If_None_Match=etag).status == 304
            connection.check()


@pytest.mark.parametrize(
    ("path", "content_type", "body", "status"),
    [
        ("/v1/factory_logs", "application/json", json.dumps([LOG] * 100), 201),
        ("/v1/factory_logs?on_error=skip", "application/json", json.dumps([LOG, {}]), 201),
        ("/v1/factory_logs", "application/x-ndjson", json.dumps(LOG) + "\n", 201),
        ("/v1/factory_logs", "text/plain", "x", 415),
        ("/v1/factory_logs", "application/json", "[", 400),
        ("/v1/repairs", "application/json", '{"product_imei": "123456789012345"}', 201),
        ("/v1/auth/login", "application/x-www-form-urlencoded", "username=x&password=y", 401),
        ("/write?db=x", "", "tiger f=1", 204),
        ("/write?db=x", "", "tiger", 400),
        ("/api/v2/write?bucket=x", "", "tiger f=1", 204),
    ],
)
def test_every_kind_of_write_leaves_the_connection_open(
    target: Target, path: str, content_type: str, body: str, status: int
) -> None:
    with Connection(target) as connection:
        for _ in range(3):
            assert connection.request("POST", path, body.encode(), Content_Type=content_type).status == status
            connection.check()


def test_a_connection_is_closed_only_after_a_response_with_connection_close(target: Target) -> None:
    with Connection(target) as connection:
        assert connection.request("GET", "/healthz", Connection="close").headers["connection"] == "close"
        with pytest.raises((AssertionError, OSError), match=r"closed|reset|pipe"):
            connection.request("GET", "/healthz")

"""HTTP over a real socket: pipelines, and which response belongs to which request (RFC 9112)."""

import json
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.faults import processes
from tests.hostile.conftest import MIB, Target
from tests.serving import free_port, serving

Receive = Callable[[socket.socket], bytes]
LOG = {"app_name": "tiger", "timestamp": "2024-01-31"}
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
LONG = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: %b\r\n\r\n" % (b"y" * 200)
LIMIT_SECONDS = 30
PIPELINES = 10
PIPELINED_BYTES = 45 * MIB
PIPELINE_GROWTH_BYTES = 32 * MIB
SMALL_LIMIT = len(LONG + HEALTH + LAST)


def post(
    target: Target, body: bytes, *headers: str, length: int | None = None, path: str = "/v1/factory_logs"
) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1", "Host: x", f"Authorization: Token token={target.token}",
        "Content-Type: application/json", *headers,
    ]  # fmt: skip
    if length != -1:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def statuses(received: bytes) -> list[int]:
    """Return the statuses of all responses; skip each body by its Content-Length."""
    found = []
    while received:
        head, _, rest = received.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        found.append(int(lines[0].split()[1]))
        lengths = [int(line.split(b":")[1]) for line in lines if line.lower().startswith(b"content-length:")]
        received = rest[sum(lengths) :]
    return found


def stored(target: Target) -> int:
    with target.client() as client:
        count: int = client.get("/v1/factory_logs").json()["num_results"]
        return count


def flood(connections: list[socket.socket], piece: bytes, size: int, seconds: float) -> int:
    """Send pieces on all connections until `size` bytes are sent, or no connection accepts any for `seconds`."""
    sent, quiet_since = 0, time.monotonic()
    for connection in connections:
        connection.setblocking(False)
    while sent < size and time.monotonic() - quiet_since < seconds:
        _, writable, _ = select.select([], connections, [], 0.2)
        for connection in writable:
            sent += connection.send(piece)
            quiet_since = time.monotonic()
    return sent


@pytest.mark.parametrize(
    "request_bytes",
    [HEALTH, b"GET /x HTTP/1.1\r\nHost:\r\n\r\n", b"GET /x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx"],
    ids=["health", "short", "with a body"],
)
def test_pipelines_whose_responses_are_not_read_cost_a_worker_little_memory(
    target: Target, request_bytes: bytes
) -> None:
    """The attacker needs no token. uvicorn's own protocol used 2 GiB of memory for the same 45 MB."""
    before = processes.memory(target.pid)
    connections = [target.connect() for _ in range(PIPELINES)]
    try:
        flood(connections, request_bytes * 2000, PIPELINED_BYTES, seconds=0.5)
        assert processes.memory(target.pid) - before < PIPELINE_GROWTH_BYTES
    finally:
        for connection in connections:
            connection.close()


def test_a_pipeline_that_is_read_gets_all_its_responses_in_order(target: Target, everything_received: Receive) -> None:
    logs = [post(target, json.dumps(LOG).encode()), HEALTH, b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n"] * 200
    with target.connect() as connection:
        connection.sendall(b"".join(logs) + LAST)
        assert statuses(everything_received(connection)) == [201, 200, 404] * 200 + [200]
    assert stored(target) == 200


@pytest.mark.parametrize("rest", [b"", b"GET /healthz HTTP/1.1\r\nHost:"], ids=["whole", "with the begin of another"])
@pytest.mark.parametrize("name", ["single write", "keyed write", "batch", "page", "several"])
def test_a_client_that_closes_its_side_gets_the_responses_to_its_whole_requests(
    target: Target, everything_received: Receive, name: str, rest: bytes
) -> None:
    page = b"GET /v1/factory_logs HTTP/1.1\r\nHost: x\r\nAuthorization: Token token=%b\r\n\r\n" % target.token.encode()
    body = json.dumps(LOG).encode()
    single, keyed, batch = post(target, body), post(target, body, "Idempotency-Key: a"), post(target, b"[%b]" % body)
    requests, expected = {
        "single write": ([single], [201]),  # needs no task, because the token is cached
        "keyed write": ([keyed], [201]),
        "batch": ([batch], [201]),
        "page": ([page], [200]),
        "several": ([single, page, batch, keyed, single], [201, 200, 201, 201, 201]),
    }[name]
    with target.connect() as connection:
        connection.sendall(b"".join(requests) + rest)
        connection.shutdown(socket.SHUT_WR)
        received = everything_received(connection)
    assert statuses(received) == expected
    assert stored(target) == expected.count(201)


@pytest.mark.parametrize(
    "sent", [b"", HEALTH[:-5], HEALTH + HEALTH[:-5]], ids=["nothing", "a part", "a whole and a part"]
)
def test_a_client_that_closes_its_side_within_a_request_is_disconnected(
    target: Target, everything_received: Receive, sent: bytes
) -> None:
    with target.connect() as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert statuses(everything_received(connection)) == [200] * sent.count(b"\r\n\r\n")


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 50])
def test_a_pipeline_is_read_however_it_is_cut_into_packets(
    target: Target, everything_received: Receive, size: int
) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (b'{"app_name":', b'"\r\n\r\n",\r\n', b"x"))
    chunked = post(target, chunks + b"0\r\nTrailer: y\r\n\r\n", "Transfer-Encoding: chunked", length=-1)
    sent = HEALTH + post(target, json.dumps(LOG).encode()) + chunked + b"\r\n\r\n" + HEALTH + LAST
    with target.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start in range(0, len(sent), size):
            connection.sendall(sent[start : start + size])
        assert statuses(everything_received(connection)) == [200, 201, 400, 200, 200]


@pytest.mark.parametrize("upgrade", [(), ("Connection: Upgrade", "Upgrade: h2c")], ids=["plain", "upgrade"])
@pytest.mark.parametrize("before_the_end", [1, 2, 3])
def test_the_end_of_a_head_may_lie_in_two_packets(
    target: Target, everything_received: Receive, before_the_end: int, upgrade: tuple[str, ...]
) -> None:
    sent = post(target, json.dumps(LOG).encode(), *upgrade)
    cut = sent.index(b"\r\n\r\n") + 4 - before_the_end
    with target.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(sent[:cut])
        time.sleep(0.2)
        connection.sendall(sent[cut:] + HEALTH + LAST)
        assert statuses(everything_received(connection)) == [201, 200, 200]


def test_a_chunk_that_looks_like_a_request_is_not_one(target: Target, everything_received: Receive) -> None:
    """The bytes after its body are the next request, which is not parsed before the first has its response."""
    behind = b"\r\n0\r\n\r\n" + HEALTH + b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n" + LAST
    chunk = b"{\r\nContent-Length: %d\r\n\r\n" % len(behind)
    with target.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(post(target, b"%x\r\n" % len(chunk), "Transfer-Encoding: chunked", length=-1))
        time.sleep(0.2)
        connection.sendall(chunk + behind)
        assert statuses(everything_received(connection)) == [400, 200, 404, 200]


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "CONTENT-LENGTH"])
@pytest.mark.parametrize("upgrade", ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n"], ids=["plain", "upgrade"])
def test_a_request_in_one_packet_is_read_however_its_length_is_spelled(
    target: Target, everything_received: Receive, name: str, upgrade: str
) -> None:
    body = json.dumps(LOG).encode()
    spelled = post(target, b"", f"{name}: {len(body)}\r\n{upgrade}X: y", length=-1) + body
    with target.connect() as connection:
        for _ in range(2):
            connection.sendall(spelled)
            assert statuses(connection.recv(65536)) == [201]
        connection.sendall(spelled + LAST)
        assert statuses(everything_received(connection)) == [201, 200]
    assert stored(target) == 3


@pytest.fixture(scope="module")
def small(migrated_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Yield the port of a worker with low limits for pipelines and unread responses."""
    settings = {
        "FACTORY_LOGS_DATABASE_URL": migrated_url,
        "FACTORY_LOGS_MAX_PIPELINED_BYTES": str(SMALL_LIMIT),
        "FACTORY_LOGS_MAX_UNSENT_BYTES": str(8 * MIB),
    }
    port = free_port()
    with serving(settings, port, tmp_path_factory.mktemp("small") / "output"):
        yield port


@pytest.mark.parametrize(("behind", "expected"), [(HEALTH, [200, 200, 200]), (HEALTH + b"\r\n", [200])])
def test_a_pipeline_over_the_workers_limit_ends_after_the_pending_response(
    small: int, everything_received: Receive, behind: bytes, expected: list[int]
) -> None:
    """The bytes of the first request also count, because all requests arrived together."""
    with socket.create_connection(("127.0.0.1", small), timeout=60) as connection:
        connection.sendall(LONG + behind + LAST)
        received = everything_received(connection)
    assert statuses(received) == expected
    assert received.count(b"connection: close") == 1


def request_for_a_long_response(target: Target) -> bytes:
    """Store 50 logs of 200 kB, and return a request for all of them."""
    with target.client() as client:
        log = LOG | {"fields": {"text": "x" * 200_000}}
        assert client.post("/v1/factory_logs", json=[log] * 50).status_code == 201
    token = f"Authorization: Token token={target.token}\r\nConnection: close\r\n"
    return f"GET /v1/factory_logs?results_per_page=50 HTTP/1.1\r\nHost: x\r\n{token}\r\n".encode()


def test_the_pipelined_bytes_of_a_connection_do_not_count_while_its_last_response_is_read(
    small: int, target: Target, everything_received: Receive
) -> None:
    ask = request_for_a_long_response(target)
    with socket.socket() as slow, socket.create_connection(("127.0.0.1", small), timeout=60) as other:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # so that most of the response stays unsent
        slow.settimeout(60)
        slow.connect(("127.0.0.1", small))
        slow.sendall(ask + b"x" * (SMALL_LIMIT - len(ask)))
        assert slow.recv(12) == b"HTTP/1.1 200"
        other.sendall(HEALTH + LAST)
        assert statuses(everything_received(other)) == [200, 200]
        assert len(everything_received(slow)) > 50 * 200_000


def test_over_the_workers_limit_of_unread_responses_the_slowest_client_is_disconnected(
    small: int, target: Target, everything_received: Receive
) -> None:
    ask = request_for_a_long_response(target)
    with (
        socket.create_connection(("127.0.0.1", small), timeout=60) as slow,
        socket.create_connection(("127.0.0.1", small), timeout=60) as slower,
    ):
        slower.sendall(ask)
        assert slower.recv(12) == b"HTTP/1.1 200"
        slow.sendall(ask)
        assert slow.recv(12) == b"HTTP/1.1 200"
        port, deadline = slower.getsockname()[1], time.monotonic() + 60
        while processes.is_connected(port, small):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert len(everything_received(slow)) > 50 * 200_000


@pytest.mark.parametrize("extra", [b"}", b"\n", b"\r\n", b"\r\n}", b" ", b"\0", b"\r", b"{}" * 100_000])
def test_extra_bytes_after_a_body_do_not_change_its_response(
    target: Target, everything_received: Receive, extra: bytes
) -> None:
    body = json.dumps(LOG).encode()
    for _ in range(20):
        with target.connect() as connection:
            connection.sendall(post(target, body) + extra)
            with suppress(OSError):  # the service has responded, and has closed the connection
                connection.shutdown(socket.SHUT_WR)
            assert statuses(everything_received(connection))[0] == 201
    with target.connect() as connection:
        connection.sendall(post(target, body + b"}", length=len(body)))
        connection.shutdown(socket.SHUT_WR)
        assert statuses(everything_received(connection)) == [201, 400]
    assert stored(target) == 21


@pytest.mark.parametrize("path", ["/v1/repairs", "/write?db=x", "/api/v2/write?bucket=x", "/v1/auth/login"])
def test_a_parse_error_of_the_next_request_never_comes_first(
    target: Target, everything_received: Receive, path: str
) -> None:
    bodies = {
        "/v1/repairs": b'{"product_imei": "123456789012345"}',
        "/v1/auth/login": b'{"username": "x", "password": "y"}',
    }
    body = bodies.get(path, b"m,app_name=x f=1")
    expected = {"/v1/repairs": 201, "/v1/auth/login": 401}.get(path, 204)
    with target.connect() as connection:
        connection.sendall(post(target, body + b"\x00", path=path, length=len(body)))
        connection.shutdown(socket.SHUT_WR)
        assert statuses(everything_received(connection)) == [expected, 400]


def test_an_invalid_chunk_is_an_error_of_its_own_request_and_nothing_is_stored(
    target: Target, everything_received: Receive
) -> None:
    body = json.dumps(LOG).encode()
    broken = b"%x\r\n%s\r\nz\r\n" % (len(body), body)
    with target.connect() as connection:
        connection.sendall(HEALTH + post(target, broken, "Transfer-Encoding: chunked", length=-1) + HEALTH)
        assert statuses(everything_received(connection)) == [200, 400]
    assert stored(target) == 0


def test_an_invalid_chunk_after_a_response_gets_no_second_response(
    target: Target, everything_received: Receive
) -> None:
    head = b"POST /v1/factory_logs HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with target.connect() as connection:
        connection.sendall(head + b"1\r\nx\r\n")
        assert statuses(connection.recv(65536)) == [401]
        connection.sendall(b"z\r\n")
        assert everything_received(connection) == b""


def test_the_trailers_of_a_chunked_body_are_not_headers(target: Target, everything_received: Receive) -> None:
    body = json.dumps(LOG).encode()
    sent = post(target, b"%x\r\n%b\r\n0\r\n" % (len(body), body), "Transfer-Encoding: chunked", length=-1)
    token = b"Authorization: Token token=%b\r\n" % target.token.encode()
    with target.connect() as connection:
        connection.sendall(sent.replace(token, b"") + token + b"\r\n" + sent + b"\r\n" + LAST)
        assert statuses(everything_received(connection)) == [401, 201, 200]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_to_upgrade_is_served_as_an_ordinary_request(
    target: Target, everything_received: Receive, method: str
) -> None:
    """As `curl --http2` sends it, with and without a body."""
    upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
    body = json.dumps(LOG).encode()
    sent = post(target, body, *upgrade)
    if method == "GET":
        sent = "\r\n".join(["GET /healthz HTTP/1.1", "Host: x", *upgrade, "", ""]).encode()
    with target.connect() as connection:
        for start in range(0, len(sent), 100):
            connection.sendall(sent[start : start + 100])
        connection.sendall(HEALTH + LAST)
        assert statuses(everything_received(connection)) == [201 if method == "POST" else 200, 200, 200]


@pytest.mark.parametrize(("version", "expected"), [(b"1.1", [100, 201]), (b"1.0", [201])])
def test_only_a_client_of_http_1_1_gets_a_100(
    target: Target, everything_received: Receive, version: bytes, expected: list[int]
) -> None:
    sent = post(target, json.dumps(LOG).encode(), "Expect: 100-continue", "Connection: close")
    with target.connect() as connection:
        connection.sendall(sent.replace(b"HTTP/1.1", b"HTTP/" + version))
        assert statuses(everything_received(connection)) == expected


def test_a_chunked_body_with_a_request_to_upgrade_gets_a_400(target: Target, everything_received: Receive) -> None:
    upgrade = ("Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked")
    with target.connect() as connection:
        connection.sendall(post(target, b"0\r\n\r\n", *upgrade, length=-1))
        received = everything_received(connection)
    assert statuses(received) == [400]
    assert b"Content-Length" in received


@pytest.mark.parametrize(
    ("request_line", "headers", "status", "message"),
    [
        ("GET /healthz HTTP/1.1", ["Host: x", "Host: x"], 400, "more than one Host"),
        ("GET /healthz HTTP/1.1", ["Host: x", "host: y"], 400, "more than one Host"),
        ("GET /healthz HTTP/1.0", ["Host: x", "Host: y"], 400, "more than one Host"),
        ("GET /healthz HTTP/1.1", [], 400, "no Host header"),
        ("GET /healthz HTTP/1.0", [], 200, ""),
        ("GET /healthz HTTP/1.1", ["Host:"], 200, ""),
        ("GET /healthz HTTP/1.1", ["Host: [::1]:8000"], 200, ""),
        ("GET /healthz HTTP/1.1", ["Host: a b"], 400, "not a host"),
        ("GET /healthz HTTP/1.1", ["Host: a/b"], 400, "not a host"),
        ("GET /healthz HTTP/1.1", ["Host: a@b"], 400, "not a host"),
        ("GET /healthz HTTP/2.0", ["Host: x"], 400, "HTTP/2.0"),
        ("GET /healthz HTTP/0.9", ["Host: x"], 400, "HTTP/0.9"),
        ("GET /healthz", [], 400, "HTTP/0.9"),
        ("GET /healthz HTTP/3.0", ["Host: x"], 400, "version"),
        ("PRI * HTTP/2.0", [], 400, ""),
        ("GET http://host HTTP/1.1", ["Host: x"], 404, "Not Found"),
        ("GET http://host?a=b HTTP/1.1", ["Host: x"], 404, "Not Found"),
        ("GET HTTP://host/healthz HTTP/1.1", ["Host: x"], 200, ""),
        ("GET http://host:80/healthz?a=b HTTP/1.1", ["Host: x"], 200, ""),
        ("GET http://[::1]:80/healthz HTTP/1.1", ["Host: x"], 200, ""),
        ("GET http://a:b@host/healthz HTTP/1.1", ["Host: x"], 400, "without user"),
        ("GET ftp://host/healthz HTTP/1.1", ["Host: x"], 400, "http or https"),
        ("GET healthz HTTP/1.1", ["Host: x"], 400, "percent-encode"),
        ("GET /é HTTP/1.1", ["Host: x"], 400, "percent-encode"),
        ("GET /v1/factory_logs?q=é HTTP/1.1", ["Host: x"], 400, "percent-encode"),
        ("GET http://é/ HTTP/1.1", ["Host: x"], 400, "percent-encode"),
        ("GET /%C3%A9 HTTP/1.1", ["Host: x"], 404, "Not Found"),
        ("OPTIONS * HTTP/1.1", ["Host: x"], 404, "Not Found"),
        ("CONNECT host:443 HTTP/1.1", ["Host: x"], 400, ""),
        ("GET /healthz HTTP/1.1", ["Host: x", "Content-Length: 1", "Content-Length: 1"], 400, "Content-Length"),
        ("GET /healthz HTTP/1.1", ["Host: x", "Content-Length: +1"], 400, "Content-Length"),
        ("GET /healthz HTTP/1.1", ["Host: x", "Content-Length: 1", "Transfer-Encoding: chunked"], 400, "Transfer-Enc"),
        ("GET /healthz HTTP/1.1", ["Host: x", "X : y"], 400, ""),
    ],
)  # fmt: skip
def test_a_head_is_read_according_to_rfc_9112(
    target: Target, everything_received: Receive, request_line: str, headers: list[str], status: int, message: str
) -> None:
    head = "\r\n".join([request_line, *headers, "Connection: close", "", ""])
    with target.connect() as connection:
        connection.sendall(head.encode())
        received = everything_received(connection)
    assert statuses(received) == [status]
    if status != 200:
        assert message in json.loads(received.partition(b"\r\n\r\n")[2])["message"]


def test_the_host_of_an_absolute_form_replaces_the_host_header(target: Target, everything_received: Receive) -> None:
    body = json.dumps(LOG).encode()
    sent = post(target, body, "Connection: close").replace(b"POST /", b"POST http://logs.example:81/")
    with target.connect() as connection:
        connection.sendall(sent)
        assert b"\r\nlocation: http://logs.example:81/v1/factory_logs/" in everything_received(connection)


@pytest.mark.parametrize(("before", "expected"), [(b"", [400]), (HEALTH, [200])], ids=["first", "next"])
def test_line_ends_before_a_request_have_the_limit_of_a_head(
    target: Target, everything_received: Receive, before: bytes, expected: list[int]
) -> None:
    line_ends = b"\r\n" * (32 * 1024)
    with target.connect() as connection:
        connection.sendall(before + line_ends + LAST)
        assert statuses(everything_received(connection)) == [200] * (before.count(b"GET") + 1)
    with target.connect() as connection:
        connection.sendall(before + line_ends + b"\r\n")
        assert statuses(everything_received(connection)) == expected


def test_a_bare_line_feed_ends_no_line(target: Target, everything_received: Receive) -> None:
    with target.connect() as connection:
        connection.sendall(LAST.replace(b"\r\n", b"\n"))
        assert statuses(everything_received(connection)) == [400]

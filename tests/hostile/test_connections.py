"""Clients that are deliberately slow, or that flood the service."""

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress

import pytest

from tests.faults import processes
from tests.hostile.conftest import LIMIT_SECONDS, Target

Receive = Callable[[socket.socket], bytes]
HEAD = b"POST /v1/factory_logs HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
FLOOD_BYTES = 64 * 1024 * 1024
MOST_UNREAD = 100


def is_408(response: bytes) -> bool:
    return (
        response.startswith(b"HTTP/1.1 408 ")
        and b"connection: close" in response
        and b"content-type: application/json" in response
        and b"did not arrive in time" in response
    )


def test_a_connection_without_a_request_is_closed(target: Target, everything_received: Receive) -> None:
    with target.connect() as connection:
        assert everything_received(connection) == b""


def test_an_idle_connection_is_closed_after_its_last_response_not_after_its_first(target: Target) -> None:
    served_from = time.monotonic()
    with target.connect() as connection, suppress(ConnectionError):
        for _ in range(4):
            sent = time.monotonic()
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            if not connection.recv(65536):  # this process was too slow
                break
            served_from = sent
            time.sleep(0.4 * LIMIT_SECONDS)
        connection.recv(1)  # until it is closed
    assert time.monotonic() - served_from > 0.99 * LIMIT_SECONDS  # timers are exact to the millisecond


def test_a_head_that_arrives_too_slowly_gets_a_408(target: Target, everything_received: Receive) -> None:
    with target.connect() as connection:
        connection.sendall(HEAD)
        assert is_408(everything_received(connection))


def test_a_byte_now_and_then_does_not_prolong_the_time_for_a_head(target: Target, everything_received: Receive) -> None:
    with target.connect() as connection:
        connection.sendall(HEAD)
        try:
            for number in range(600):
                connection.sendall(b"X-%d: y\r\n" % number)
                time.sleep(0.1)
        except OSError:
            return
        pytest.fail("a minute of drops was taken")


def test_a_second_head_on_the_connection_must_arrive_in_time_too(target: Target, everything_received: Receive) -> None:
    with target.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")
        connection.sendall(HEAD)
        assert is_408(everything_received(connection))


@pytest.mark.parametrize("path", [b"/v1/factory_logs", b"/v1/repairs", b"/write?db=x", b"/api/v2/write?bucket=x"])
def test_a_body_that_stops_arriving_gets_a_408(target: Target, everything_received: Receive, path: bytes) -> None:
    with target.connect() as connection:
        token = f"Authorization: Token token={target.token}\r\n".encode()
        connection.sendall(HEAD.replace(b"/v1/factory_logs", path) + token + b"Content-Length: 1000\r\n\r\n{")
        assert is_408(everything_received(connection))


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded"])
def test_a_login_that_stops_arriving_gets_a_408(
    target: Target, everything_received: Receive, content_type: str
) -> None:
    head = f"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: {content_type}\r\nContent-Length: 100\r\n"
    with target.connect() as connection:
        connection.sendall(head.encode() + b"\r\nusername=")
        assert is_408(everything_received(connection))


@pytest.mark.parametrize("drops", [0, 1, 600])
def test_after_an_early_response_the_rest_of_the_body_is_not_waited_for_long(target: Target, drops: int) -> None:
    with target.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 1000\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        try:
            for _ in range(drops):
                connection.sendall(b"x")
                time.sleep(0.1)
            assert connection.recv(1) == b""
        except OSError:
            return
    assert drops < 600, "a minute of drops was taken"


def test_after_an_early_response_a_client_that_sends_the_rest_of_its_body_can_continue(
    target: Target, everything_received: Receive
) -> None:
    with target.connect() as connection:
        connection.sendall(HEAD + b"Content-Length: 10\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 401 ")
        connection.sendall(b"x" * 10 + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert everything_received(connection).startswith(b"HTTP/1.1 200 ")  # then it closes when idle


@pytest.mark.parametrize(
    ("begin", "piece"),
    [
        (HEAD, b"X-Header: y\r\n"),
        (HEAD + b"X-Header: ", b"y" * 1000),
        (HEAD + b"X-Header", b"y" * 1000),
        (b"GET /v1/factory_logs?q=", b"y" * 1000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\n", b"X-Trailer: y\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: ", b"y" * 1000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;x=", b"y" * 1000),
    ],
    ids=["headers", "value", "name", "url", "trailers", "trailer value", "chunk extension"],
)
def test_an_endless_head_is_refused(target: Target, everything_received: Receive, begin: bytes, piece: bytes) -> None:
    sent = 0
    with target.connect() as connection:
        connection.sendall(begin)
        try:
            while sent < FLOOD_BYTES:
                connection.sendall(piece * 100)
                sent += len(piece) * 100
        except OSError:
            return
    pytest.fail("all of it was taken")


@pytest.mark.parametrize(("count", "status"), [(100, 200), (101, 400)])
def test_a_hundred_headers_are_read_and_one_more_gets_a_400(
    target: Target, everything_received: Receive, count: int, status: int
) -> None:
    headers = b"".join(b"X-%d: y\r\n" % number for number in range(count - 2))
    with target.connect() as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + b"\r\n")
        assert everything_received(connection).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize(("over", "status"), [(0, 404), (1, 400)])
def test_a_head_at_the_limit_is_read_and_one_byte_more_gets_a_400(
    target: Target, everything_received: Receive, over: int, status: int
) -> None:
    names = len("HostxConnectioncloseX")
    value = b"y" * (64 * 1024 - names - len("/nothing") + over)
    with target.connect() as connection:
        connection.sendall(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX: " + value + b"\r\n\r\n")
        assert everything_received(connection).startswith(b"HTTP/1.1 %d " % status)


def test_a_client_that_does_not_read_a_long_response_is_cut_off(target: Target) -> None:
    with target.client() as client:
        log = {"app_name": "long", "timestamp": "2024-01-31", "fields": {"text": "x" * 200_000}}
        assert client.post("/v1/factory_logs", json=[log] * 50).status_code == 201
    token = f"Authorization: Token token={target.token}\r\n"
    ask = f"GET /v1/factory_logs?results_per_page=50 HTTP/1.1\r\nHost: x\r\n{token}\r\n"
    with target.connect() as connection:
        connection.sendall(ask.encode())
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")
        port = connection.getsockname()[1]
        deadline = time.monotonic() + 60
        while processes.is_connected(port, target.port):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_an_endless_response_ends_after_the_client_has_closed_its_side(
    target: Target, everything_received: Receive
) -> None:
    token = f"Authorization: Token token={target.token}\r\n"
    with target.connect() as connection:
        connection.sendall(f"GET /v1/factory_logs/tail HTTP/1.1\r\nHost: x\r\n{token}\r\n".encode())
        received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 200 ")
        connection.shutdown(socket.SHUT_WR)
        assert not everything_received(connection).endswith(b"0\r\n\r\n")


def test_a_client_that_leaves_the_end_of_a_response_unread_is_disconnected(target: Target) -> None:
    """The unread rest is smaller than the limit for slow readers. The buffer size of the sockets is unknown; one of
    these responses exceeds it."""
    with target.client() as client:
        log = {"app_name": "long", "timestamp": "2024-01-31", "fields": {"text": "x" * 40_000}}
        path = client.post("/v1/factory_logs", json=log).headers["Location"].partition("/v1")[2]
    ask = f"GET /v1{path} HTTP/1.1\r\nHost: x\r\nAuthorization: Token token={target.token}\r\n\r\n".encode()
    with ExitStack() as open_connections:
        ports = []
        for count in range(1, MOST_UNREAD):
            connection = open_connections.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", target.port))
            connection.sendall(ask * count)
            ports.append(connection.getsockname()[1])
        deadline = time.monotonic() + 120
        while left := [count for count, port in enumerate(ports, 1) if processes.is_connected(port, target.port)]:
            assert time.monotonic() < deadline, f"still connected after so many responses: {left}"
            time.sleep(0.1)

"""The transport of a device responds as httpx's own transport does, and reports errors as httpx does."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from secrets import token_hex

import httpx
import pytest

from factory_logs.load import transport as module
from factory_logs.load.transport import DeviceTransport
from tests.client.servers import Server
from tests.serving import free_port

TIMEOUT_SECONDS = 60.0
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.contextmanager
def device(timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[DeviceTransport]:
    with contextlib.closing(DeviceTransport(ssl.create_default_context(), timeout_seconds)) as transport:
        yield transport


@contextlib.contextmanager
def peer(serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, list[int]]]:
    """Yield the URL of a server, and a list that grows by the number of each connection. `serve` gets each connection
    after a whole request has arrived."""
    connections: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    connections.append(len(connections))
                    with connection:
                        while connection.recv(65_536):
                            serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/", connections
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def get(transport: DeviceTransport, url: str) -> httpx.Response:
    return transport.handle_request(httpx.Request("GET", url))


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("POST", "v1/factory_logs", b'{"app_name": "a", "timestamp": "2024-01-01"}'),
        ("POST", "v1/factory_logs", b"{"),
        ("GET", "v1/factory_logs/0", b""),
        ("GET", "v1/factory_logs?q=%7B%22limit%22%3A%201%7D", b""),
    ],
    ids=["created", "refused", "not found", "page"],
)
def test_a_response_is_that_of_the_transport_of_httpx(
    shared_server: Server, token: str, method: str, path: str, content: bytes
) -> None:
    request = httpx.Request(
        method,
        f"{shared_server.url}/{path}",
        headers={
            "Authorization": f"Token token={token}",
            "Content-Type": "application/json",
            "Idempotency-Key": token_hex(8),
        },
        content=content,
    )
    with httpx.HTTPTransport() as peer_transport, device() as transport:
        expected = peer_transport.handle_request(request)
        expected.read()
        response = transport.handle_request(request)
    differing = {"date", "x-request-id", "idempotency-replayed", "content-length"}

    def headers(of: httpx.Response) -> dict[str, str]:
        return {name: value for name, value in of.headers.items() if name not in differing}

    def body(of: httpx.Response) -> object:
        found = of.json()
        return {name: value for name, value in found.items() if name != "request_id"}

    assert (response.status_code, headers(response), body(response)) == (
        expected.status_code,
        headers(expected),
        body(expected),
    )


def test_requests_share_one_connection() -> None:
    with peer(lambda connection: connection.sendall(RESPONSE)) as (url, connections), device() as transport:
        assert [get(transport, url).text for _ in range(3)] == ["ok", "ok", "ok"]
        assert len(connections) == 1


def test_a_connection_that_was_idle_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LONGEST_IDLE_SECONDS", -1.0)
    with peer(lambda connection: connection.sendall(RESPONSE)) as (url, connections), device() as transport:
        assert [get(transport, url).text for _ in range(2)] == ["ok", "ok"]
        assert len(connections) == 2


def test_a_server_that_closes_its_connection_after_each_response_is_not_an_error() -> None:
    closing = RESPONSE.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with peer(lambda connection: connection.sendall(closing)) as (url, connections), device() as transport:
        assert [get(transport, url).text for _ in range(2)] == ["ok", "ok"]
        assert len(connections) == 2


def test_a_response_that_is_cut_off_is_an_error_and_the_next_request_opens_a_connection() -> None:
    responses = iter([RESPONSE[:-1], RESPONSE])

    def respond(connection: socket.socket) -> None:
        response = next(responses)
        connection.sendall(response)
        if response != RESPONSE:
            connection.shutdown(socket.SHUT_RDWR)

    with peer(respond) as (url, connections), device() as transport:
        with pytest.raises(httpx.RemoteProtocolError):
            get(transport, url)
        assert get(transport, url).text == "ok"
        assert len(connections) == 2


@pytest.mark.parametrize("response", [b"", b"no HTTP\r\n\r\n"], ids=["nothing", "no HTTP"])
def test_a_connection_that_ends_without_a_response_is_an_error(response: bytes) -> None:
    def respond(connection: socket.socket) -> None:
        connection.sendall(response)
        connection.shutdown(socket.SHUT_RDWR)

    with peer(respond) as (url, _), device() as transport, pytest.raises(httpx.RemoteProtocolError):
        get(transport, url)


def test_a_connection_that_is_reset_is_an_error() -> None:
    def reset(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        connection.close()
        raise OSError

    with peer(reset) as (url, _), device() as transport, pytest.raises(httpx.TransportError):
        get(transport, url)


def test_a_server_that_does_not_respond_in_time_is_an_error() -> None:
    with peer(lambda connection: None) as (url, _), device(0.05) as transport, pytest.raises(httpx.ReadTimeout):
        get(transport, url)


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_the_default_port_of_an_ipv6_address(monkeypatch: pytest.MonkeyPatch, scheme: str, port: int) -> None:
    addresses: list[object] = []

    def connect(address: object, *_: object) -> socket.socket:
        addresses.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(socket, "create_connection", connect)
    with device() as transport, pytest.raises(httpx.ConnectError):
        get(transport, f"{scheme}://[::1]/")
    assert addresses == [("::1", port)]


def test_a_server_that_is_not_there_is_an_error() -> None:
    with device() as transport, pytest.raises(httpx.ConnectError):
        get(transport, f"http://127.0.0.1:{free_port()}/")


def test_a_server_without_tls_is_an_error_for_an_https_url() -> None:
    def respond(connection: socket.socket) -> None:
        connection.sendall(RESPONSE)

    with peer(respond) as (url, _), device() as transport, pytest.raises(httpx.ConnectError):
        get(transport, url.replace("http", "https"))

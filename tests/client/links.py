"""Links that fail on purpose, below the client's HTTP library; the other side is a real server or none."""

import socket
import threading
from collections.abc import Iterator

import httpx


class Hanging(httpx.BaseTransport):
    """A server that receives a request and does not respond until a test releases it; then the connection is closed."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.is_hanging = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.is_hanging = True
        self.entered.set()
        self.let_go.wait(300)
        self.is_hanging = False
        raise httpx.ReadTimeout("silence")


class Switched(httpx.BaseTransport):
    """A link to a real server that is down until the test switches it on. With `losing`, the server stores the logs and
    the response is lost."""

    def __init__(self, *, up: bool = False, losing: bool = False) -> None:
        self.up = up
        self.losing = losing
        self.attempts = 0
        self.posts = 0
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.attempts += 1
        if not self.up:
            raise httpx.ConnectError("unreachable")
        response = self._real.handle_request(request)
        if request.method == "POST":
            self.posts += 1
            if self.losing:
                response.read()
                response.close()
                raise httpx.ReadTimeout("silence")
        return response

    def close(self) -> None:
        self._real.close()


class Stalling(httpx.BaseTransport):
    """A link to a real server that never delivers the last byte of a POST's body, but delivers the server's
    response."""

    def __init__(self) -> None:
        self.responses: list[httpx.Response] = []
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return self._real.handle_request(request)
        head = b"".join(b"%s: %s\r\n" % header for header in request.headers.raw)
        with socket.create_connection((request.url.host, request.url.port), timeout=60) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\n%s\r\n%s" % (request.url.raw_path, head, request.read()[:-1]))
            reader = connection.makefile("rb")
            status = int(reader.readline().split()[1])
            headers = dict(line.decode().rstrip().split(": ", 1) for line in iter(reader.readline, b"\r\n"))
            body = reader.read(int(headers["content-length"]))
        self.responses.append(httpx.Response(status, headers=headers, content=body))
        return self.responses[-1]

    def close(self) -> None:
        self._real.close()


class Cutting(httpx.BaseTransport):
    """A link to a real server that breaks in the middle of every second response."""

    def __init__(self) -> None:
        self.responses = 0
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        response = self._real.handle_request(request)
        self.responses += 1
        if self.responses % 2 == 0:
            return response
        half = _Half(b"".join(response.stream))  # type: ignore[arg-type]
        response.close()
        return httpx.Response(response.status_code, headers=response.headers, stream=half)

    def close(self) -> None:
        self._real.close()


class _Half(httpx.SyncByteStream):
    """The first half of a body, after which the connection ends."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body[: len(self._body) // 2]
        raise httpx.ReadError("cut")

"""Links that go wrong on purpose, under a client's HTTP library: the other side of them is a real server or none."""

import socket
import threading

import httpx


class Hanging(httpx.BaseTransport):
    """A server that takes a request and says nothing until it is told to; then the connection is cut."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.let_go = threading.Event()
        self.is_hanging = False

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.is_hanging = True
        self.entered.set()
        self.let_go.wait(30)
        self.is_hanging = False
        raise httpx.ReadTimeout("silence")


class Switched(httpx.BaseTransport):
    """A link to a real server that is down until it is switched on. `losing`: what is stored, is answered to nobody."""

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
        answer = self._real.handle_request(request)
        if request.method == "POST":
            self.posts += 1
            if self.losing:
                answer.read()
                answer.close()
                raise httpx.ReadTimeout("silence")
        return answer

    def close(self) -> None:
        self._real.close()


class Stalling(httpx.BaseTransport):
    """A link to a real server on which the last byte of a POST's body never arrives; the server's answer does."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response] = []
        self._real = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.method != "POST":
            return self._real.handle_request(request)
        head = b"".join(b"%s: %s\r\n" % header for header in request.headers.raw)
        with socket.create_connection((request.url.host, request.url.port), timeout=60) as connection:
            connection.sendall(b"POST %s HTTP/1.1\r\n%s\r\n%s" % (request.url.raw_path, head, request.read()[:-1]))
            answer = connection.makefile("rb")
            status = int(answer.readline().split()[1])
            headers = dict(line.decode().rstrip().split(": ", 1) for line in iter(answer.readline, b"\r\n"))
            body = answer.read(int(headers["content-length"]))
        self.answers.append(httpx.Response(status, headers=headers, content=body))
        return self.answers[-1]

    def close(self) -> None:
        self._real.close()

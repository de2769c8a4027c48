"""Links that go wrong on purpose, under a client's HTTP library: the other side of them is a real server or none."""

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

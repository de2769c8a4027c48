"""A tail over connections that break: no log is skipped, and a log whose handler failed is delivered again."""

import json
import random
from collections.abc import Iterator
from types import SimpleNamespace

import httpx
import pytest

from factory_logs.client import tail_stream
from factory_logs.client.retry import Backoff
from factory_logs.client.tail_stream import TailError, TailStream
from factory_logs.client.token_source import FixedToken, Login

STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}


def event(number: int, text: str = "") -> bytes:
    return b"id: %d\ndata: %b\n\n" % (number, json.dumps({"n": number, "text": text}, ensure_ascii=False).encode())


def error(status: int, message: str, **headers: str) -> httpx.Response:
    content = {"message": message, "request_id": "r-1"}
    return httpx.Response(status, json=content, headers={"X-Request-ID": "r-1", **headers})


class Server:
    """Sends one scripted response for each connection."""

    def __init__(self, *responses: httpx.Response | Exception) -> None:
        self.responses = list(responses)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response

    @property
    def last_ids(self) -> list[str | None]:
        return [request.headers.get("last-event-id") for request in self.requests]


class Broken(httpx.SyncByteStream):
    """The parts of a response that then breaks off."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        raise httpx.ReadError("cut")


def broken(*parts: bytes) -> httpx.Response:
    return httpx.Response(200, headers=STREAM, stream=Broken(*parts))


class Followed:
    """A tail of the server, and the problems that it has reported."""

    def __init__(self, server: Server, **options: object) -> None:
        self.troubles: list[str] = []
        self.tail = TailStream(
            "http://logs.test", FixedToken("t"), on_trouble=self.troubles.append,
            backoff=Backoff(0.001, 0.001, random.Random(1)), transport=httpx.MockTransport(server), **options,  # type: ignore[arg-type]
        )  # fmt: skip

    def take(self, count: int) -> list[int]:
        logs = iter(self.tail)
        return [next(logs)["n"] for _ in range(count)]


def test_it_reconnects_with_the_last_id_after_any_end_of_the_connection() -> None:
    server = Server(
        broken(b"retry: 2000\n\n: start\nid: 4\n\n"),
        broken(event(5, "line\u2028"), event(6)[:12]),
        httpx.ConnectError("unreachable"),
        error(503, "busy", **{"Retry-After": "0"}),
        httpx.Response(200, html="<h1>Sign in to the guest network</h1>"),
        broken(event(6) + b": heartbeat\nid: 9\n\n"),
        broken(event(10)),
    )
    followed = Followed(server, q="{}")
    assert followed.take(3) == [5, 6, 10]
    assert server.last_ids == [None, "4", "5", "5", "5", "5", "9"]
    assert server.requests[0].url.params["q"] == "{}"
    assert followed.troubles == ["cut", "cut", "unreachable", "busy",
                                 "HTTP 200 is not a response of this API to this request: text/html; charset=utf-8",
                                 "cut"]  # fmt: skip


def test_a_log_is_yielded_again_if_its_processing_did_not_end() -> None:
    server = Server(broken(event(5) + event(6)), broken(event(6)))
    followed = Followed(server, last_id=4)
    assert followed.take(2) == [5, 6]
    assert followed.tail.last_id == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_an_error_that_a_retry_would_not_solve_ends_it(status: int) -> None:
    followed = Followed(Server(error(status, "no such thing")))
    with pytest.raises(TailError, match="no such thing"):
        followed.take(1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405])
def test_a_refusal_that_is_not_from_this_api_does_not_end_it(status: int) -> None:
    refusals = httpx.Response(status, html="<h1>Forbidden</h1>"), httpx.Response(status, json={"message": "no route"})
    followed = Followed(Server(*refusals, broken(event(1))))
    assert followed.take(1) == [1]
    assert followed.troubles == [
        f"HTTP {status} is not a response of this API to this request: text/html; charset=utf-8",
        f"HTTP {status} is not a response of this API to this request: no route",
    ]


def test_a_revoked_login_is_renewed_at_once() -> None:
    def login(token: str) -> httpx.Response:
        success = {"API_token": token, "token_expiry": "Mon, 01 Aug 2044 17:05:11 GMT"}
        return httpx.Response(200, json={"message": {"login_successful": success}})

    ended = error(401, "The token is unknown")
    server = Server(login("first"), ended, login("second"), broken(event(1)))
    tail = TailStream("http://logs.test", Login("jig", "p"), last_id=0, transport=httpx.MockTransport(server))
    assert next(iter(tail))["n"] == 1
    assert server.requests[-1].headers["authorization"] == "Token token=second"


def test_a_refused_password_ends_it() -> None:
    server = Server(error(401, "The username or the password is wrong"))
    tail = TailStream("http://logs.test", Login("jig", "p"), transport=httpx.MockTransport(server))
    with pytest.raises(TailError, match="refuses the username and password"):
        next(iter(tail))


def test_a_login_that_must_wait_is_tried_again_after_its_retry_after(monkeypatch: pytest.MonkeyPatch) -> None:
    # By the device's clock, the server's time has passed long ago.
    times = {"Date": "Mon, 01 Aug 2022 17:05:11 GMT", "Retry-After": "Mon, 01 Aug 2022 17:06:11 GMT"}
    server = Server(error(429, "Too many failed logins", **times), httpx.ConnectError("unreachable"))
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            raise InterruptedError

    monkeypatch.setattr(tail_stream, "time", SimpleNamespace(sleep=sleep))
    backoff = Backoff(0.001, 0.001, random.Random(1))
    tail = TailStream("http://logs.test", Login("jig", "p"), backoff=backoff, transport=httpx.MockTransport(server))
    with pytest.raises(InterruptedError):
        next(iter(tail))
    assert 60 <= waits[0] <= 61
    assert waits[1] <= 1


class EndlessBody(httpx.SyncByteStream):
    """A body without an end, such as that of a broken proxy."""

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x" * 65536


def test_an_endless_response_that_is_not_a_stream_is_not_read_endlessly() -> None:
    followed = Followed(Server(httpx.Response(200, stream=EndlessBody()), broken(event(1))))
    assert followed.take(1) == [1]
    assert followed.troubles == ["the response is too long for this API"]


@pytest.mark.parametrize("garbage", [b"id: x\n\n", b"id: 2\ndata: {\n\n", b"id: 2\ndata: 7\n\n", b"\xff\x00: \n\n"])
def test_garbage_in_the_stream_ends_the_connection_and_not_the_tail(garbage: bytes) -> None:
    server = Server(broken(event(1) + garbage), broken(event(2)))
    followed = Followed(server)
    assert followed.take(2) == [1, 2]
    assert server.last_ids == [None, "1"]

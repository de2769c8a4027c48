"""Following over connections that break: none is skipped, whoever takes a log and fails gets it again."""

import json
import random
from collections.abc import Iterator

import httpx
import pytest

from factory_logs.client.backoff import Backoff
from factory_logs.client.credentials import FixedToken, Login
from factory_logs.client.tailing import Tail, TailError

STREAM = {"Content-Type": "text/event-stream; charset=utf-8"}


def event(number: int, text: str = "") -> bytes:
    return b"id: %d\ndata: %b\n\n" % (number, json.dumps({"n": number, "text": text}, ensure_ascii=False).encode())


class Server:
    """Gives one scripted answer for each connection."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def last_ids(self) -> list[str | None]:
        return [request.headers.get("last-event-id") for request in self.requests]


class Broken(httpx.SyncByteStream):
    """The parts of an answer that is then cut off."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts
        raise httpx.ReadError("cut")


def broken(*parts: bytes) -> httpx.Response:
    return httpx.Response(200, headers=STREAM, stream=Broken(*parts))


class Followed:
    """A tail of the server, and what troubles it has told of."""

    def __init__(self, server: Server, **options: object) -> None:
        self.troubles: list[str] = []
        self.tail = Tail(
            "http://logs.test", FixedToken("t"), on_trouble=self.troubles.append,
            backoff=Backoff(0.001, 0.001, random.Random(1)), transport=httpx.MockTransport(server), **options,  # type: ignore[arg-type]
        )  # fmt: skip

    def take(self, count: int) -> list[int]:
        logs = iter(self.tail)
        return [next(logs)["n"] for _ in range(count)]


def test_it_comes_back_with_the_last_id_whatever_ends_the_connection() -> None:
    server = Server(
        broken(b"retry: 2000\n\n: start\nid: 4\n\n"),
        broken(event(5, "line\u2028"), event(6)[:12]),
        httpx.ConnectError("unreachable"),
        httpx.Response(503, json={"message": "busy"}, headers={"Retry-After": "0"}),
        httpx.Response(200, html="<h1>Sign in to the guest network</h1>"),
        broken(event(6) + b": heartbeat\nid: 9\n\n"),
        broken(event(10)),
    )
    followed = Followed(server, q="{}")
    assert followed.take(3) == [5, 6, 10]
    assert server.last_ids == [None, "4", "5", "5", "5", "5", "9"]
    assert server.requests[0].url.params["q"] == "{}"
    assert followed.troubles == ["cut", "cut", "unreachable", "busy",
                                 "the server answered 200, not as this API does", "cut"]  # fmt: skip


def test_a_log_that_was_taken_but_not_come_back_from_is_given_again() -> None:
    server = Server(broken(event(5) + event(6)), broken(event(6)))
    followed = Followed(server, last_id=4)
    assert followed.take(2) == [5, 6]
    assert followed.tail.last_id == 5


@pytest.mark.parametrize("status", [400, 401, 403, 404])
def test_what_coming_back_would_not_mend_ends_it(status: int) -> None:
    followed = Followed(Server(httpx.Response(status, json={"message": "no such thing"})))
    with pytest.raises(TailError, match="no such thing"):
        followed.take(1)


def test_a_login_that_was_ended_is_renewed_at_once() -> None:
    def login(token: str) -> httpx.Response:
        success = {"API_token": token, "token_expiry": "Mon, 01 Aug 2044 17:05:11 GMT"}
        return httpx.Response(200, json={"message": {"login_successful": success}})

    ended = httpx.Response(401, json={"message": "The token is unknown"})
    server = Server(login("first"), ended, login("second"), broken(event(1)))
    tail = Tail("http://logs.test", Login("jig", "p"), last_id=0, transport=httpx.MockTransport(server))
    assert next(iter(tail))["n"] == 1
    assert server.requests[-1].headers["authorization"] == "Token token=second"

"""Responses that break off or arrive very slowly over a real socket: none counts as complete, and none blocks the
sender, a reader or a tail for ever."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from factory_logs.client import Reader, ServerUnavailableError, reader, tail_stream
from factory_logs.client.delivery import ServerLink
from factory_logs.client.outbox import Outbox
from factory_logs.client.retry import Backoff
from factory_logs.client.sender import Sender
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Spool
from factory_logs.client.tail_stream import TailStream
from factory_logs.client.token_source import FixedToken

DATE = b"Date: Sun, 06 Nov 2033 08:49:37 GMT\r\n"
HEALTHY = b"HTTP/1.1 200 OK\r\n" + DATE + b"Content-Type: application/json\r\nContent-Length: 0\r\n\r\n"
HEAD = b"HTTP/1.1 201 Created\r\n" + DATE + b"Content-Type: application/json\r\n"
CREATED = b'{"num_created":3,"ids":[1,2,3]}'
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(CREATED) + CREATED
LONG = HEAD + b"Content-Length: 100000\r\n\r\n" + CREATED + b" " * 90_000
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n1f\r\n" + CREATED + b"\r\n"


class Script:
    """A server that sends the next of `responses` for each request but that for its health: bytes, and the index from
    which they arrive one by one, or None. Then it hangs up."""

    def __init__(self) -> None:
        self.responses: list[tuple[bytes, int | None]] = []
        self.bodies: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(60)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                try:
                    while self._respond(connection):
                        pass
                except OSError:
                    continue  # the client has closed the connection

    def _respond(self, connection: socket.socket) -> bool:
        """Respond to one request. Return whether the connection remains open."""
        head, _, body = self._until(connection, b"\r\n\r\n").partition(b"\r\n\r\n")
        if head.startswith(b"GET /healthz"):
            connection.sendall(HEALTHY)
            return True
        if not head:
            return False
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = next(iter(lengths), 0)
        while len(body) < length:
            body += connection.recv(65536)
        self.bodies.append(body)
        response, trickles_from = self.responses.pop(0)
        start = len(response) if trickles_from is None else trickles_from
        connection.sendall(response[:start])
        for byte in response[start:]:
            time.sleep(0.05)
            connection.sendall(bytes([byte]))
        return False

    @staticmethod
    def _until(connection: socket.socket, end: bytes) -> bytes:
        data = b""
        while end not in data:
            part = connection.recv(65536)
            if not part:
                return data
            data += part
        return data


@pytest.fixture
def script() -> Iterator[Script]:
    server = Script()
    yield server
    server.close()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    yield spool
    spool.file.close()


@contextmanager
def sender_of(spool: Spool, script: Script, settings: ClientSettings) -> Iterator[Sender]:
    link = ServerLink(script.url, FixedToken("t"), settings)
    with closing(link):
        yield Sender(Outbox(spool.file), link, settings)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("response", "trickles_from"),
    [
        (WHOLE[:-1], None), (CHUNKED, None), (HEAD, None), (HEAD + b"\r\n" + CREATED[:-1], None), (b"", None),
        (LONG, LONG.index(b"\r\n\r\n") + 4),
        (HEAD + b"X: " + b"x" * 90_000 + WHOLE[len(HEAD) :], len(HEAD)),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 4000 + WHOLE, 0),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1f;" + b"x" * 90_000, len(HEAD) + 32),
    ],
    ids=[
        "body cut off", "chunks without their end", "head cut off", "JSON cut off", "nothing",
        "body a byte at a time", "head a byte at a time", "interim responses", "the head of a chunk a byte at a time",
    ],
)  # fmt: skip
def test_an_incomplete_response_acknowledges_nothing_and_is_requested_again(
    spool: Spool, script: Script, response: bytes, trickles_from: int | None
) -> None:
    spool.put([b'{"app_name":"a","timestamp":"2024-01-01 00:00:00","fields":{"n":%d}}' % number for number in range(3)])
    script.responses = [(response, trickles_from), (WHOLE, None)]
    with sender_of(spool, script, ClientSettings(whole_response_seconds=0.2)) as sender:
        assert sender.step().seconds > 0
        assert sender.trouble
        assert trickles_from is None or sender.trouble == "ReadTimeout: the response comes too slowly"
    assert (spool.totals().pending, spool.totals().delivered) == (3, 0)
    with sender_of(spool, script, ClientSettings()) as sender:
        sender.step()
    assert (spool.totals().pending, spool.totals().delivered) == (0, 3)
    assert script.bodies[0] == script.bodies[1]


OK = b"HTTP/1.1 200 OK\r\n"
NDJSON = OK + b"Content-Type: application/x-ndjson\r\n\r\n"
EVENTS = OK + b"Content-Type: text/event-stream\r\n\r\n"
RECORD = b'{"n": 1}\n'
EVENT = b"id: 1\ndata: " + RECORD + b"\n"
SLOW = [(OK + b"X: " + b"x" * 90_000, len(OK)), (OK + b"\r\n" + b"x" * 90_000, len(OK) + 2)]
SLOW_PART = pytest.mark.parametrize("slow", SLOW, ids=["head a byte at a time", "body a byte at a time"])


@pytest.fixture
def short_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (reader, tail_stream):
        monkeypatch.setattr(module, "WHOLE_RESPONSE_SECONDS", 0.2)


@pytest.mark.slow
@pytest.mark.usefixtures("short_bound")
@SLOW_PART
@pytest.mark.parametrize("q", [None, {"group_by": [{"field": "product_imei"}]}], ids=["page", "export"])
def test_a_reader_does_not_wait_for_ever(script: Script, slow: tuple[bytes, int], q: dict[str, object] | None) -> None:
    script.responses = [slow]
    with (
        Reader(script.url, "t", patience_seconds=0) as logs,
        pytest.raises(ServerUnavailableError, match="ReadTimeout: the response comes too slowly"),
    ):
        list(logs.logs(q))


@pytest.mark.slow
@pytest.mark.usefixtures("short_bound")
@SLOW_PART
def test_a_tail_does_not_wait_for_ever(script: Script, slow: tuple[bytes, int]) -> None:
    script.responses = [slow] * 2
    found: list[str] = []

    def on_trouble(why: str) -> None:
        found.append(why)
        raise InterruptedError

    with pytest.raises(InterruptedError):
        next(iter(TailStream(script.url, FixedToken("t"), on_trouble=on_trouble)))
    assert found == ["the response comes too slowly"]


@pytest.mark.slow
@pytest.mark.usefixtures("short_bound")
def test_an_export_and_a_tail_may_take_any_time(script: Script) -> None:
    def on_trouble(why: str) -> None:  # on a busy machine, the head may be late and is then requested again
        assert script.responses, why

    quick = Backoff(0.01, 0.1)
    script.responses = [(NDJSON + RECORD, len(NDJSON))] * 20
    with Reader(script.url, "t", on_trouble=on_trouble, backoff=quick) as logs:
        assert list(logs.logs({"group_by": [{"field": "product_imei"}]})) == [{"n": 1}]
    script.responses = [(EVENTS + EVENT, len(EVENTS))] * 20
    assert next(iter(TailStream(script.url, FixedToken("t"), on_trouble=on_trouble, backoff=quick))) == {"n": 1}

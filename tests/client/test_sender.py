"""What the sender makes of each answer. The network is a script here; the spool is real."""

import gzip
import json
import operator
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest
import zstandard

from factory_logs.client.backoff import Backoff
from factory_logs.client.credentials import Credentials, FixedToken, Login, TokenFile
from factory_logs.client.delivery import Failed, Link
from factory_logs.client.outbox import Outbox
from factory_logs.client.sender import QUIET_SECONDS, UNAUTHORISED_SECONDS, Pause, Sender
from factory_logs.client.server_clock import retry_after
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Spool

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]
NOW = 1_700_000_000.0
PORTAL = "<h1>Sign in to the guest network</h1>"


class Server:
    """Answers by a script; then stores whatever comes."""

    def __init__(self) -> None:
        self.script: list[Answer] = []
        self.requests: list[httpx.Request] = []
        self.stored: list[str] = []
        self.known: list[dict[str, object]] = []
        self.now = NOW
        self.is_portal = False

    def __call__(self, request: httpx.Request) -> httpx.Response:
        answer = self._answer(request)
        answer.headers.setdefault("Date", formatdate(self.now, usegmt=True))
        return answer

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/healthz":
            return httpx.Response(200, html=PORTAL) if self.is_portal else httpx.Response(200, json={"status": "ok"})
        if request.method == "GET":
            return httpx.Response(200, json={"objects": self.found(request)})
        self.requests.append(request)
        if not self.script:
            return self.store(request)
        answer = self.script.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else answer(request)

    def store(self, request: httpx.Request) -> httpx.Response:
        lines = body_of(request).decode().splitlines()
        self.stored += lines
        return httpx.Response(201, json={"num_created": len(lines)})

    def found(self, request: httpx.Request) -> list[dict[str, object]]:
        """The known logs that q selects, all on the first page."""
        filters = json.loads(request.url.params["q"])["filters"]
        operators = {"==": operator.eq, ">=": operator.ge}
        return [
            log
            for log in self.known
            if request.url.params["page"] == "1"
            and all(operators[one["op"]](log.get(one["name"]), one["val"]) for one in filters)
        ]

    @property
    def keys(self) -> list[str]:
        return [request.headers["idempotency-key"] for request in self.requests]


def body_of(request: httpx.Request) -> bytes:
    match request.headers.get("content-encoding"):
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(request.read())
        case "gzip":
            return gzip.decompress(request.read())
        case _:
            return request.read()


def error(status: int, message: str = "no", **more: object) -> httpx.Response:
    return httpx.Response(status, json={"message": message, "request_id": "x", **more})


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    yield spool
    spool.file.close()


def sender_of(
    spool: Spool,
    server: Server,
    settings: ClientSettings | None = None,
    credentials: Credentials | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Sender:
    settings = settings or ClientSettings()
    link = Link("http://logs.test/", credentials or FixedToken("t"), settings, httpx.MockTransport(server))
    return Sender(Outbox(spool.file), link, settings, Backoff(1.0, 8.0, random.Random(1)), clock)


def put(spool: Spool, count: int, start: int = 0) -> list[str]:
    lines = [
        json.dumps({"app_name": "a", "timestamp": "2024-01-01 00:00:00", "fields": {"n": n}})
        for n in range(start, start + count)
    ]
    spool.put([line.encode() for line in lines])
    return lines


def drain(sender: Sender, steps: int = 100) -> None:
    """Step until there is nothing to send, waiting for nothing."""
    for _ in range(steps):
        if sender.step().idle:
            return
    raise AssertionError(f"still not idle: {sender.trouble}")


def test_batches_go_out_in_order_each_under_its_key(spool: Spool, server: Server) -> None:
    lines = put(spool, 25)
    drain(sender_of(spool, server, ClientSettings(max_batch_records=10)))
    assert server.stored == lines
    assert len(set(server.keys)) == 3
    request = server.requests[0]
    assert request.headers["authorization"] == "Token token=t"
    assert request.headers["content-type"] == "application/x-ndjson"
    assert spool.totals().delivered == 25


@pytest.mark.parametrize("encoding", ["zstd", "gzip", "identity"])
def test_each_compression_carries_the_same_body(spool: Spool, server: Server, encoding: str) -> None:
    lines = put(spool, 3)
    drain(sender_of(spool, server, ClientSettings.model_validate({"encoding": encoding})))
    assert server.requests[0].headers.get("content-encoding", "identity") == encoding
    assert server.stored == lines


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("silence"),
        httpx.RemoteProtocolError("cut"),
        error(500),
        error(502),
        error(503),
        error(429),
        error(404),
        error(405),
        error(408, "The body did not arrive in time"),
        error(400, "The body did not arrive in time"),
        error(400, "The request's head did not arrive in time"),
        httpx.Response(200, html=PORTAL),
        httpx.Response(302, headers={"Location": "http://portal.test/"}),
        httpx.Response(201, html="created"),
        httpx.Response(201, json={"num_created": 2}),
        httpx.Response(201, json=[]),
        httpx.Response(400, html="<h1>Bad request</h1>"),
        httpx.Response(400, json={"message": "a gateway does not like this"}),
    ],
    ids=str,
)
def test_whatever_is_no_answer_of_this_api_is_tried_again_with_the_same_key_and_body(
    spool: Spool, server: Server, answer: Answer
) -> None:
    lines = put(spool, 3)
    server.script = [answer, answer]
    sender = sender_of(spool, server)
    assert sender.step().seconds > 0
    assert sender.trouble
    put(spool, 1, 3)
    restarted = sender_of(spool, server)
    assert restarted.step().seconds > 0
    assert restarted.step() == Pause(0.0)
    assert restarted.trouble is None
    assert len(set(server.keys)) == 1
    assert {body_of(request) for request in server.requests} == {("\n".join(lines) + "\n").encode()}
    assert spool.totals().pending == 1


def test_waits_grow_and_are_spread_over_all_of_their_length() -> None:
    backoff = Backoff(1.0, 8.0, random.Random(7))
    samples = []
    for _ in range(500):
        backoff.succeeded()
        samples.append([backoff.failed() for _ in range(6)])
    for failures, longest in enumerate((1, 2, 4, 8, 8, 8)):
        waits = sorted(sample[failures] for sample in samples)
        assert waits[-1] <= longest
        assert waits[len(waits) // 2] == pytest.approx(longest / 2, rel=0.15)
        assert waits[0] < longest * 0.05


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        (None, None),
        ("9" * 400, 999999999.0),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after_is_read_as_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


def test_retry_after_is_waited_for_at_least_and_believed_up_to_a_limit(spool: Spool, server: Server) -> None:
    put(spool, 1)
    server.script = [
        httpx.Response(503, json={"message": "full"}, headers={"Retry-After": "30"}),
        httpx.Response(429, json={"message": "full"}, headers={"Retry-After": formatdate(NOW + 40, usegmt=True)}),
        httpx.Response(503, json={"message": "full"}, headers={"Retry-After": "999999"}),
    ]
    sender = sender_of(spool, server, ClientSettings(max_retry_after_seconds=100))
    pauses = [sender.step() for _ in range(3)]
    assert all(pause.firm for pause in pauses)
    assert 30 <= pauses[0].seconds <= 31
    assert 38 <= pauses[1].seconds <= 42
    assert 100 <= pauses[2].seconds <= 104


def test_a_413_splits_the_batch_until_it_fits_and_a_log_that_never_fits_is_set_aside(
    spool: Spool, server: Server
) -> None:
    lines = [*put(spool, 8), "x" * 2000, *put(spool, 0)]
    spool.put([lines[-1].encode()])
    more = put(spool, 4, 8)

    def limited(request: httpx.Request) -> httpx.Response:
        return error(413, "too large") if len(body_of(request)) > 300 else server.store(request)

    server.script = [limited] * 40
    drain(sender_of(spool, server))
    assert server.stored == [*lines[:8], *more]
    (rejected,) = spool.rejected()
    assert (rejected.line, rejected.reason) == (b"x" * 2000, "too large")
    assert len(set(server.keys)) == len(server.keys)


def test_logs_the_server_names_as_bad_are_set_aside_and_the_others_go_on_under_a_new_key(
    spool: Spool, server: Server
) -> None:
    lines = put(spool, 5)
    faults = [
        {"index": 1, "field": "repair_id", "message": "there is no repair 9"},
        {"index": 4, "field": "a", "message": "b"},
        {"index": 4, "field": "", "message": "c"},
    ]
    server.script = [error(400, "Validation failed", errors=faults)]
    drain(sender_of(spool, server))
    assert server.stored == [lines[0], lines[2], lines[3]]
    assert [(log.line.decode(), log.reason) for log in spool.rejected()] == [
        (lines[1], "repair_id: there is no repair 9"),
        (lines[4], "a: b; c"),
    ]
    assert server.keys[0] != server.keys[1]


def test_more_bad_logs_than_an_answer_lists_are_all_set_aside(spool: Spool, server: Server) -> None:
    lines = put(spool, 350)
    bad = set(lines[::1]) - set(lines[::7])

    def strict(request: httpx.Request) -> httpx.Response:
        sent = body_of(request).decode().splitlines()
        faults = [{"index": n, "field": "", "message": "bad"} for n, line in enumerate(sent) if line in bad]
        return error(400, "Validation failed", errors=faults[:100]) if faults else server.store(request)

    server.script = [strict] * 10
    drain(sender_of(spool, server))
    assert server.stored == lines[::7]
    assert {log.line.decode() for log in spool.rejected()} == bad


def test_a_400_that_names_no_log_is_narrowed_down_to_the_one_that_is_bad(spool: Spool, server: Server) -> None:
    lines = put(spool, 20)

    def picky(request: httpx.Request) -> httpx.Response:
        bad = lines[13] in body_of(request).decode()
        return error(400, "Unable to decode data") if bad else server.store(request)

    server.script = [picky] * 60
    drain(sender_of(spool, server))
    assert server.stored == lines[:13] + lines[14:]
    assert [(log.line.decode(), log.reason) for log in spool.rejected()] == [(lines[13], "Unable to decode data")]


@pytest.mark.parametrize("refusal", [error(400, "Invalid HTTP request received."), error(413, "too large")], ids=str)
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("was_stored", [True, False])
def test_a_refusal_after_a_lost_answer_says_nothing_of_the_earlier_try_so_the_logs_are_looked_for(
    spool: Spool, server: Server, refusal: httpx.Response, count: int, is_restarted: bool, was_stored: bool
) -> None:
    def lost(request: httpx.Request) -> httpx.Response:
        if was_stored:
            server.store(request)
        raise httpx.ReadTimeout("silence")

    lines, clock = put(spool, count), Clock()
    server.script = [lost, refusal, refusal]
    sender = sender_of(spool, server, clock=clock)
    sender.step()
    if is_restarted:
        sender = sender_of(spool, server, clock=clock)
    server.known = [on_server(line) for line in server.stored]
    assert sender.step() == Pause(QUIET_SECONDS, firm=True)
    assert "though an earlier try may be stored" in str(sender.trouble)
    if is_restarted:
        sender = sender_of(spool, server, clock=clock)
        sender.step()
    clock.seconds += QUIET_SECONDS
    server.script = []
    drain(sender)
    assert server.stored == lines
    assert len(set(server.keys)) == (1 if was_stored else 2)
    assert (spool.totals().delivered, spool.totals().rejected, spool.totals().pending) == (count, 0, 0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_pauses_and_drops_nothing(spool: Spool, server: Server, status: int) -> None:
    lines = put(spool, 3)
    server.script = [error(status, "The token is unknown"), error(status, "The token is unknown")]
    sender = sender_of(spool, server)
    pause = sender.step()
    assert pause.seconds >= UNAUTHORISED_SECONDS
    assert sender.trouble == "the server refuses the token: The token is unknown"
    sender.step()
    drain(sender)
    assert server.stored == lines
    assert spool.totals().rejected == 0


def test_a_token_file_is_read_again_so_that_a_new_token_heals_the_link(
    spool: Spool, server: Server, tmp_path: Path
) -> None:
    put(spool, 1)
    file = tmp_path / "token"
    sender = sender_of(spool, server, credentials=TokenFile(file))
    sender.step()
    assert sender.trouble == f"the token file {file} cannot be read: FileNotFoundError"
    file.write_text("new\n")
    drain(sender)
    assert server.requests[-1].headers["authorization"] == "Token token=new"


class LoginServer(Server):
    """Gives tokens out, of which only the newest is good."""

    def __init__(self, idle_seconds: float = 10_800) -> None:
        super().__init__()
        self.logins = 0
        self.idle_seconds = idle_seconds

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/auth/login":
            if json.loads(request.read()) != {"username": "jig", "password": "open sesame"}:
                return error(401, "The username or the password is wrong.")
            self.logins += 1
            expiry = formatdate(self.now + self.idle_seconds, usegmt=True)
            success = {"API_token": f"token-{self.logins}", "token_expiry": expiry}
            return httpx.Response(200, json={"message": {"login_successful": success}})
        if request.method == "POST" and request.headers["authorization"] != f"Token token=token-{self.logins}":
            return error(401, "expired")
        return super()._answer(request)


def test_a_login_renews_itself_within_the_same_try_when_its_token_is_refused(spool: Spool) -> None:
    server = LoginServer()
    sender = sender_of(spool, server, credentials=Login("jig", "open sesame"))
    lines = put(spool, 1)
    drain(sender)
    server.logins += 1  # the server knows the first token no more
    lines += put(spool, 1, 1)
    drain(sender)
    assert server.logins == 3
    assert server.stored == lines


def test_a_login_is_renewed_before_it_has_idled_out(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    server = LoginServer(idle_seconds=100)
    sender = sender_of(spool, server, credentials=Login("jig", "open sesame"))
    started = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: started)
    for seconds, logins in ((0, 1), (70, 1), (140, 1), (230, 2)):
        monkeypatch.setattr(time, "monotonic", lambda now=started + seconds: now)
        put(spool, 1)
        drain(sender)
        assert server.logins == logins


def test_a_wrong_password_pauses_without_hammering(spool: Spool) -> None:
    server = LoginServer()
    put(spool, 1)
    sender = sender_of(spool, server, credentials=Login("jig", "wrong"))
    assert sender.step().seconds >= UNAUTHORISED_SECONDS
    assert sender.trouble == "the server refuses the username and password"
    assert spool.totals().pending == 1


def test_a_server_that_cannot_read_a_compression_is_sent_another_with_the_same_key(
    spool: Spool, server: Server
) -> None:
    lines = put(spool, 2)
    server.script = [error(415), error(415)]
    drain(sender_of(spool, server))
    encodings = [request.headers.get("content-encoding") for request in server.requests]
    assert encodings == ["zstd", "gzip", None]
    assert server.stored == lines
    assert len(set(server.keys)) == 1


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def in_doubt(
    spool: Spool, server: Server, policy: str, age_seconds: float, credentials: Credentials | None = None
) -> Sender:
    """A sender whose batch got no answer so long ago, by the server's clock; then the device was restarted."""
    server.script = [httpx.ReadTimeout("silence")]
    chosen = ClientSettings.model_validate({"in_doubt": policy})
    sender_of(spool, server, chosen).step()
    server.now += age_seconds
    clock = Clock()
    sender = sender_of(spool, server, chosen, credentials, clock)
    clock.seconds += QUIET_SECONDS
    return sender


def on_server(line: str, created_at: float = NOW) -> dict[str, object]:
    """The log as the server gives it."""
    at = str(datetime.fromtimestamp(created_at, UTC).replace(tzinfo=None))
    return {"factory_log_id": 1, "product_imei": None, "repair_id": None, "tags": None, "fields": None,
            "created_at": at, **json.loads(line)}  # fmt: skip


def test_within_the_keys_life_a_batch_is_simply_sent_again(spool: Spool, server: Server) -> None:
    put(spool, 3)
    drain(in_doubt(spool, server, "set_aside", 22 * 3600))
    assert len(set(server.keys)) == 1
    assert spool.totals().delivered == 3


@pytest.mark.parametrize("age", [23.1 * 3600, 10**7, -7200])
def test_an_old_batch_is_looked_for_on_the_server_and_settled_where_it_is_there(
    spool: Spool, server: Server, age: float
) -> None:
    lines = put(spool, 5)
    sender = in_doubt(spool, server, "ask", age)
    server.known = [on_server(line, NOW + min(age, 60)) for line in lines]
    drain(sender)
    assert len(server.requests) == 1
    assert (spool.totals().delivered, spool.totals().pending) == (5, 0)


@pytest.mark.parametrize("missing", [0, 2, 4])
def test_an_old_batch_of_which_a_log_is_not_there_is_sent_under_a_new_key(
    spool: Spool, server: Server, missing: int
) -> None:
    lines = put(spool, 5)
    sender = in_doubt(spool, server, "ask", 24 * 3600)
    server.known = [on_server(line) for place, line in enumerate(lines) if place != missing]
    drain(sender)
    assert len(set(server.keys)) == 2
    assert server.stored == lines


def test_equal_logs_that_were_stored_before_the_batch_could_leave_are_not_taken_for_it(
    spool: Spool, server: Server
) -> None:
    lines = put(spool, 1)
    sender = in_doubt(spool, server, "ask", 24 * 3600)
    server.known = [on_server(lines[0], NOW - 2 * 3600)]
    drain(sender)
    assert server.stored == lines


def test_an_old_batch_is_not_asked_for_while_its_last_try_may_be_under_way(spool: Spool, server: Server) -> None:
    lines = put(spool, 1)
    clock = Clock()
    sender = sender_of(spool, server, clock=clock)
    clock.seconds = 1000.0
    server.script = [httpx.ReadTimeout("silence")]
    sender.step()
    server.now += 24 * 3600
    sender = sender_of(spool, server, clock=clock)
    clock.seconds += QUIET_SECONDS - 1
    assert sender.step() == Pause(1.0, firm=True)
    assert sender.trouble == "a batch is in doubt: its Idempotency-Key is too old"
    clock.seconds += 1
    drain(sender)
    assert server.stored == lines
    assert sender.trouble is None


@pytest.mark.parametrize("was_stored", [True, False])
def test_under_another_token_a_batch_is_looked_for_rather_than_sent_again_as_keys_are_kept_by_user(
    spool: Spool, server: Server, was_stored: bool
) -> None:
    lines = put(spool, 3)
    sender = in_doubt(spool, server, "ask", 60, credentials=FixedToken("of another user"))
    server.known = [on_server(line) for line in lines] if was_stored else []
    drain(sender)
    assert server.stored == ([] if was_stored else lines)
    assert spool.totals().delivered == 3


def test_a_new_login_of_the_same_user_sends_under_the_same_key(spool: Spool) -> None:
    server = LoginServer()
    lines = put(spool, 2)
    server.script = [httpx.ReadTimeout("silence")]
    sender_of(spool, server, credentials=Login("jig", "open sesame")).step()
    drain(sender_of(spool, server, credentials=Login("jig", "open sesame")))
    assert server.stored == lines
    assert len(set(server.keys)) == 1


def test_a_token_that_is_replaced_between_two_looks_at_it_sends_nothing_under_the_wrong_key(
    spool: Spool, server: Server, tmp_path: Path
) -> None:
    lines = put(spool, 1)
    file = tmp_path / "token"
    file.write_text("old")
    batch = Outbox(spool.file).open(1, 100, TokenFile(file).account(), NOW)
    assert batch is not None
    file.write_text("new")
    link = Link("http://logs.test/", TokenFile(file), ClientSettings(), httpx.MockTransport(server))
    assert link.deliver(batch) == Failed("the token was replaced", 0.0)
    assert server.requests == []
    assert spool.totals().pending == len(lines)


def test_by_policy_an_old_batch_is_sent_again_or_set_aside(spool: Spool, server: Server) -> None:
    lines = put(spool, 2)
    drain(in_doubt(spool, server, "resend", 24 * 3600))
    assert server.stored == lines
    put(spool, 2, 2)
    drain(in_doubt(spool, server, "set_aside", 24 * 3600))
    assert server.stored == lines
    assert [log.reason for log in spool.rejected()] == [
        "in doubt: it may be stored on the server already (its Idempotency-Key is too old)"
    ] * 2


def test_a_key_that_the_server_knows_with_another_content_is_resolved_the_same_way(
    spool: Spool, server: Server
) -> None:
    lines = put(spool, 2)
    server.script = [error(409, "This Idempotency-Key was already used with another body")]
    drain(sender_of(spool, server))
    assert server.stored == lines
    assert len(set(server.keys)) == 2


def test_the_devices_wrong_clock_plays_no_part_in_a_batchs_age(
    spool: Spool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spool, 1)
    sender = in_doubt(spool, server, "set_aside", 60)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    drain(sender)
    assert (spool.totals().delivered, spool.totals().rejected) == (1, 0)


def test_a_captive_portals_clock_is_not_taken_for_the_servers(spool: Spool, server: Server) -> None:
    put(spool, 1)
    server.now, server.is_portal = 0.0, True
    sender = sender_of(spool, server)
    assert sender.step().seconds > 0
    assert sender.trouble == "the server answered 200: text/html; charset=utf-8, not of this API"
    server.now, server.is_portal = NOW, False
    server.script = [httpx.ReadTimeout("silence")]
    sender.step()
    portal = httpx.Response(200, html=PORTAL, headers={"Date": formatdate(NOW - 10**6, usegmt=True)})
    server.script = [portal]
    sender.step()
    drain(sender)
    assert len(set(server.keys)) == 1
    assert (spool.totals().delivered, len(server.stored)) == (1, 1)


@pytest.mark.parametrize("wait", ["9" * 400, "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_login_that_is_told_to_wait_for_ever_waits_for_as_long_as_is_believed(spool: Spool, wait: str) -> None:
    class Busy(LoginServer):
        def _answer(self, request: httpx.Request) -> httpx.Response:
            busy = httpx.Response(429, json={"message": "too many tries"}, headers={"Retry-After": wait})
            return busy if request.url.path == "/v1/auth/login" else super()._answer(request)

    put(spool, 1)
    sender = sender_of(spool, Busy(), ClientSettings(max_retry_after_seconds=100), Login("jig", "open sesame"))
    assert 100 <= sender.step().seconds <= 101


def test_an_answer_without_end_is_not_read_without_end(spool: Spool, server: Server) -> None:
    put(spool, 1)
    server.script = [httpx.Response(200, content=b"x" * (5 * 1024 * 1024))]
    sender = sender_of(spool, server)
    assert sender.step().seconds > 0
    assert "too long" in str(sender.trouble)

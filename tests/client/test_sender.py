"""How the sender handles each response. The network is scripted; the spool is real."""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import formatdate
from pathlib import Path

import httpx
import pytest

from factory_logs.client.delivery import ServerLink, TryLater
from factory_logs.client.outbox import Outbox
from factory_logs.client.sender import QUIET_SECONDS, UNAUTHORISED_SECONDS, Pause, Sender
from factory_logs.client.settings import ClientSettings
from factory_logs.client.spool import Spool
from factory_logs.client.token_source import FixedToken, Login, TokenFile, TokenSource
from tests.client.factories import Clock, drain
from tests.client.scripted_server import (
    NOW,
    PORTAL,
    REQUEST_ID,
    Answer,
    Server,
    body_of,
    error,
    foreign,
    put,
    refusal,
    sender_of,
)


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path)
    yield spool
    spool.file.close()


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "response",
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
        httpx.Response(409, html="<h1>Conflict</h1>"),
        httpx.Response(413, html="<h1>Request entity too large</h1>"),
        httpx.Response(415, html="<h1>Unsupported</h1>"),
        httpx.Response(401, html="<h1>Sign in</h1>"),
        httpx.Response(403, html="<h1>Forbidden by the web application firewall</h1>"),
        httpx.Response(400, json=[1]),
        httpx.Response(413, content=b"\xff\x00"),
        *(foreign(status) for status in (400, 401, 403, 409, 413, 415)),
        foreign(400, errors=[{"index": 0, "field": "", "message": "bad"}]),
        httpx.Response(413, json={"message": ["no", "text"], "request_id": REQUEST_ID}),
    ],
    ids=str,
)
def test_a_response_from_elsewhere_is_retried_with_the_same_key_and_body(
    spool: Spool, server: Server, response: Answer
) -> None:
    lines = put(spool, 3)
    server.script = [response, response]
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
    assert (spool.totals().pending, spool.totals().rejected) == (1, 0)


def test_retries_after_responses_from_elsewhere_wait_longer_and_longer_and_the_reason_is_reported(
    spool: Spool, server: Server
) -> None:
    put(spool, 1)
    responses = [httpx.Response(409, html="<h1>Conflict</h1>"), httpx.Response(413, html="<h1>Too large</h1>")] * 20
    server.script = list(responses)
    sender = sender_of(spool, server)
    waits = [sender.step().seconds for _ in responses]
    assert sum(waits) > len(waits) * 8.0 / 4
    assert sender.trouble == "HTTP 413 is not a response of this API to this request: text/html; charset=utf-8"
    assert len(set(server.keys)) == 1
    server.script = [foreign(413)]
    sender.step()
    assert sender.trouble == "HTTP 413 is not a response of this API to this request: Request size limit exceeded"


def test_each_request_has_an_id_of_its_own(spool: Spool, server: Server) -> None:
    put(spool, 1)
    server.script = [error(503), error(503)]
    drain(sender_of(spool, server))
    assert len({request.headers["X-Request-ID"] for request in server.requests}) == 3


def test_a_gateway_may_replace_the_request_id(spool: Spool, server: Server) -> None:
    put(spool, 1)
    content = {"message": "no such repair", "request_id": "gateway-7"}
    server.script = [httpx.Response(400, json=content, headers={"X-Request-ID": "gateway-7"})]
    drain(sender_of(spool, server))
    assert [log.reason for log in spool.rejected()] == ["no such repair"]


def test_a_server_that_calls_every_key_a_conflict_gets_pauses_between_requests(spool: Spool, server: Server) -> None:
    put(spool, 1)
    server.script = [error(409, "This Idempotency-Key was already used with another body")] * 40
    sender = sender_of(spool, server)
    assert sum(sender.step().seconds for _ in range(40)) > 40 * 8.0 / 4
    assert "already used" in str(sender.trouble)
    assert spool.totals().pending == 1


def test_the_wait_is_at_least_retry_after_up_to_a_limit(spool: Spool, server: Server) -> None:
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


@pytest.mark.parametrize("wait", ["0", "Wed, 21 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_without_a_wait_gets_the_growing_waits_too(spool: Spool, server: Server, wait: str) -> None:
    put(spool, 1)
    busy = error(503, "full")
    busy.headers["Retry-After"] = wait
    server.script = [busy] * 40
    sender = sender_of(spool, server)
    pauses = [sender.step() for _ in range(40)]
    assert sum(pause.seconds for pause in pauses) > 40 * 8.0 / 4
    assert not any(pause.firm for pause in pauses)


def test_a_redirect_is_reported_with_its_target(spool: Spool, server: Server) -> None:
    put(spool, 1)
    server.script = [httpx.Response(301, headers={"Location": "https://logs.test/v1/factory_logs"})]
    sender = sender_of(spool, server)
    sender.step()
    assert sender.trouble == (
        "HTTP 301 is not a response of this API to this request: a redirect to https://logs.test/v1/factory_logs"
    )


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


def test_after_a_log_that_is_too_large_the_batches_grow_again(spool: Spool, server: Server) -> None:
    spool.put([b"x" * 2000])
    put(spool, 2000)

    def limited(request: httpx.Request) -> httpx.Response:
        return error(413, "too large") if b"xxx" in body_of(request) else server.store(request)

    server.script = [limited] * 1000
    sender = sender_of(spool, server)
    drain(sender)
    assert (spool.totals().delivered, spool.totals().rejected) == (2000, 1)
    put(spool, 200, 2000)
    del server.requests[:]
    drain(sender)
    assert len(server.requests) == 1


def test_a_limit_that_stays_refuses_few_batches(spool: Spool, server: Server) -> None:
    lines = put(spool, 2000)
    limit = sum(map(len, lines)) // 40

    def limited(request: httpx.Request) -> httpx.Response:
        return error(413, "too large") if len(body_of(request)) > limit else server.store(request)

    server.script = [limited] * 1000
    drain(sender_of(spool, server))
    assert server.stored == lines
    refused = sum(len(body_of(request)) > limit for request in server.requests)
    assert refused * 5 < len(server.requests)


def test_logs_that_the_server_rejects_are_set_aside_and_the_others_are_sent_under_a_new_key(
    spool: Spool, server: Server
) -> None:
    lines = put(spool, 5)
    errors = [
        {"index": 1, "field": "repair_id", "message": "there is no repair 9"},
        {"index": 4, "field": "a", "message": "b"},
        {"index": 4, "field": "", "message": "c"},
    ]
    server.script = [error(400, "Validation failed", errors=errors)]
    drain(sender_of(spool, server))
    assert server.stored == [lines[0], lines[2], lines[3]]
    assert [(log.line.decode(), log.reason) for log in spool.rejected()] == [
        (lines[1], "repair_id: there is no repair 9"),
        (lines[4], "a: b; c"),
    ]
    assert server.keys[0] != server.keys[1]


def test_more_bad_logs_than_a_response_lists_are_all_set_aside(spool: Spool, server: Server) -> None:
    lines = put(spool, 350)
    bad = set(lines[::1]) - set(lines[::7])

    def strict(request: httpx.Request) -> httpx.Response:
        sent = body_of(request).decode().splitlines()
        errors = [{"index": n, "field": "", "message": "bad"} for n, line in enumerate(sent) if line in bad]
        return error(400, "Validation failed", errors=errors[:100]) if errors else server.store(request)

    server.script = [strict] * 10
    drain(sender_of(spool, server))
    assert server.stored == lines[::7]
    assert {log.line.decode() for log in spool.rejected()} == bad


def test_a_400_without_an_index_is_narrowed_down_to_the_bad_log(spool: Spool, server: Server) -> None:
    lines = put(spool, 20)

    def picky(request: httpx.Request) -> httpx.Response:
        bad = lines[13] in body_of(request).decode()
        return error(400, "Unable to decode data") if bad else server.store(request)

    server.script = [picky] * 60
    drain(sender_of(spool, server))
    assert server.stored == lines[:13] + lines[14:]
    assert [(log.line.decode(), log.reason) for log in spool.rejected()] == [(lines[13], "Unable to decode data")]


BAD = [{"index": 0, "field": "repair_id", "message": "there is no repair 9"}]
REFUSALS = pytest.mark.parametrize(
    "refused",
    [
        error(400, "Invalid HTTP request received."),
        error(413, "too large"),
        error(400, "Validation failed", errors=BAD),
    ],
    ids=["400", "413", "400 that names a log"],
)


def lost(server: Server, *, was_stored: bool) -> Answer:
    """Return the script of a request whose response is lost."""

    def answer(request: httpx.Request) -> httpx.Response:
        if was_stored:
            server.store(request)
            server.known = [on_server(line) for line in server.stored]
        raise httpx.ReadTimeout("silence")

    return answer


@REFUSALS
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("is_restarted", [False, True])
@pytest.mark.parametrize("was_stored", [True, False])
def test_after_a_lost_response_a_refusal_does_not_decide_and_the_logs_are_looked_up(
    spool: Spool, server: Server, refused: httpx.Response, count: int, is_restarted: bool, was_stored: bool
) -> None:
    lines, clock = put(spool, count), Clock()
    server.script = [lost(server, was_stored=was_stored), refused]
    sender = sender_of(spool, server, clock=clock)
    sender.step()
    if is_restarted:
        sender = sender_of(spool, server, clock=clock)
    assert sender.step() == Pause(QUIET_SECONDS, firm=True)
    assert "though an earlier try may be stored" in str(sender.trouble)
    if is_restarted:
        sender = sender_of(spool, server, clock=clock)
        assert sender.step().firm
        assert len(server.requests) == 2
    # Now every earlier request has ended, so the next one shows what is stored, unless it is refused again.
    server.script = [refused, refused]
    while server.script:
        clock.seconds += QUIET_SECONDS
        sender.step()
        if not spool.totals().pending:
            break
    drain(sender)
    assert server.stored == lines
    assert len(set(server.keys)) == (1 if was_stored else 2)
    assert (spool.totals().delivered, spool.totals().rejected, spool.totals().pending) == (count, 0, 0)


@REFUSALS
def test_after_a_lost_response_the_batch_is_sent_again_when_earlier_requests_have_ended(
    spool: Spool, server: Server, refused: httpx.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "found", lambda request: None)  # a token that only stores logs cannot look them up
    lines, clock = put(spool, 3), Clock()
    server.script = [lost(server, was_stored=True), refused]
    drain(sender_of(spool, server, clock=clock))
    assert server.stored == lines
    assert len(set(server.keys)) == 1
    assert (spool.totals().delivered, spool.totals().rejected) == (3, 0)


@pytest.mark.parametrize("status", [400, 413])
def test_a_server_that_has_looked_for_the_key_decides(
    spool: Spool, server: Server, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "found", lambda request: None)
    lines = put(spool, 3)
    server.script = [lost(server, was_stored=True), refusal(status, is_key_used=True)]
    drain(sender_of(spool, server, clock=Clock()))
    assert server.stored == lines
    assert len(server.requests) == 2
    assert (spool.totals().delivered, spool.totals().rejected) == (3, 0)


@pytest.mark.parametrize("is_quiet", [True, False])
@pytest.mark.parametrize("status", [400, 413])
def test_after_a_lost_response_a_refusal_decides_if_the_key_is_unused_and_earlier_requests_have_ended(
    spool: Spool, server: Server, status: int, is_quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "found", lambda request: None)
    lines, clock = put(spool, 4), Clock()
    more = {"errors": [BAD[0] | {"index": 3}]} if status == 400 else {}
    unused = refusal(status, is_key_used=False, **more)
    server.script = [lost(server, was_stored=False), *([] if is_quiet else [unused]), unused]
    sender = sender_of(spool, server, clock=clock)
    sender.step()
    if is_quiet:
        clock.seconds += QUIET_SECONDS
    else:
        assert sender.step() == Pause(QUIET_SECONDS, firm=True)
    drain(sender)
    assert len(set(server.keys)) == (2 if status == 400 else 3)
    assert server.stored == (lines[:3] if status == 400 else lines)
    assert [log.line.decode() for log in spool.rejected()] == (lines[3:] if status == 400 else [])


@pytest.mark.parametrize("why", ["old", "refused", "conflict"])
@pytest.mark.parametrize("was_stored", [True, False])
def test_short_scripts_resolve_a_batch_in_doubt_together(
    spool: Spool, server: Server, why: str, was_stored: bool
) -> None:
    lines = put(spool, 3)
    server.script = [lost(server, was_stored=was_stored)]
    sender_of(spool, server, clock=Clock()).step()
    if why == "old":
        server.now += 24 * 3600
        server.known = [on_server(line, NOW + 60) for line in server.stored]
    later = put(spool, 1, 3)
    end = server.now + 10 * QUIET_SECONDS
    while spool.totals().pending and server.now < end:
        answers = {"old": [], "refused": [error(413)], "conflict": [error(409)]}
        server.script = list(answers[why]) if len(set(server.keys)) == 1 else []
        sender = sender_of(spool, server, clock=Clock())
        while not sender.step().seconds:
            pass
        server.now += 30
    assert server.stored == lines + later
    assert (spool.totals().delivered, spool.totals().rejected, spool.totals().pending) == (4, 0, 0)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_pauses_sending_and_drops_nothing(spool: Spool, server: Server, status: int) -> None:
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


def test_a_token_file_is_read_again_so_that_a_new_token_is_used(spool: Spool, server: Server, tmp_path: Path) -> None:
    put(spool, 1)
    file = tmp_path / "token"
    sender = sender_of(spool, server, credentials=TokenFile(file))
    sender.step()
    assert sender.trouble == f"the token file {file} cannot be read: FileNotFoundError"
    file.write_text("new\n")
    drain(sender)
    assert server.requests[-1].headers["authorization"] == "Token token=new"


class LoginServer(Server):
    """Issues tokens, of which only the newest is valid."""

    def __init__(self, idle_seconds: float = 10_800) -> None:
        super().__init__()
        self.logins = 0
        self.idle_seconds = idle_seconds

    def _respond(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/auth/login":
            if json.loads(request.read()) != {"username": "jig", "password": "open sesame"}:
                return error(401, "The username or the password is wrong.")
            self.logins += 1
            expiry = formatdate(self.now + self.idle_seconds, usegmt=True)
            success = {"API_token": f"token-{self.logins}", "token_expiry": expiry}
            return httpx.Response(200, json={"message": {"login_successful": success}})
        if request.method == "POST" and request.headers["authorization"] != f"Token token=token-{self.logins}":
            return error(401, "expired")
        return super()._respond(request)


def test_a_login_whose_token_is_refused_is_renewed_in_the_same_attempt(spool: Spool) -> None:
    server = LoginServer()
    sender = sender_of(spool, server, credentials=Login("jig", "open sesame"))
    lines = put(spool, 1)
    drain(sender)
    server.logins += 1  # the first token is no longer valid
    lines += put(spool, 1, 1)
    drain(sender)
    assert server.logins == 3
    assert server.stored == lines


def test_a_login_is_renewed_before_it_expires(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    server = LoginServer(idle_seconds=100)
    sender = sender_of(spool, server, credentials=Login("jig", "open sesame"))
    started = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: started)
    for seconds, logins in ((0, 1), (70, 1), (140, 1), (230, 2)):
        monkeypatch.setattr(time, "monotonic", lambda now=started + seconds: now)
        put(spool, 1)
        drain(sender)
        assert server.logins == logins


def test_a_wrong_password_pauses_between_attempts(spool: Spool) -> None:
    server = LoginServer()
    put(spool, 1)
    sender = sender_of(spool, server, credentials=Login("jig", "wrong"))
    assert sender.step().seconds >= UNAUTHORISED_SECONDS
    assert sender.trouble == "the server refuses the username and password"
    assert spool.totals().pending == 1


def test_if_a_server_lacks_a_compression_another_one_is_used_under_the_same_key(spool: Spool, server: Server) -> None:
    lines = put(spool, 2)
    server.script = [error(415), error(415)]
    drain(sender_of(spool, server))
    encodings = [request.headers.get("content-encoding") for request in server.requests]
    assert encodings == ["zstd", "gzip", None]
    assert server.stored == lines
    assert len(set(server.keys)) == 1


def in_doubt(
    spool: Spool, server: Server, policy: str, age_seconds: float, credentials: TokenSource | None = None
) -> Sender:
    """Return a sender whose batch got no response that long ago, by the server's clock; the device has restarted
    since."""
    server.script = [httpx.ReadTimeout("silence")]
    chosen = ClientSettings.model_validate({"in_doubt": policy})
    sender_of(spool, server, chosen).step()
    server.now += age_seconds
    clock = Clock()
    sender = sender_of(spool, server, chosen, credentials, clock)
    clock.seconds += QUIET_SECONDS
    return sender


def on_server(line: str, created_at: float = NOW) -> dict[str, object]:
    """Return the log as the server returns it."""
    at = str(datetime.fromtimestamp(created_at, UTC).replace(tzinfo=None))
    return {"factory_log_id": 1, "product_imei": None, "repair_id": None, "tags": None, "fields": None,
            "created_at": at, **json.loads(line)}  # fmt: skip


def test_a_batch_in_doubt_is_set_aside_if_the_token_may_not_read_so_that_later_logs_are_sent(
    spool: Spool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spool, 2)
    sender = in_doubt(spool, server, "ask", 24 * 3600)
    monkeypatch.setattr(server, "found", lambda request: None)
    more = put(spool, 1, 2)
    drain(sender)
    assert server.stored == more
    assert [log.reason for log in spool.rejected()] == [
        "in doubt: it may be stored on the server already (its Idempotency-Key is too old)"
    ] * 2


def test_a_batch_is_sent_again_while_its_key_is_valid(spool: Spool, server: Server) -> None:
    put(spool, 3)
    drain(in_doubt(spool, server, "set_aside", 22 * 3600))
    assert len(set(server.keys)) == 1
    assert spool.totals().delivered == 3


@pytest.mark.parametrize("age", [23.1 * 3600, 10**7, -7200])
def test_an_old_batch_is_looked_up_on_the_server_and_completed_if_it_is_stored(
    spool: Spool, server: Server, age: float
) -> None:
    lines = put(spool, 5)
    sender = in_doubt(spool, server, "ask", age)
    server.known = [on_server(line, NOW + min(age, 60)) for line in lines]
    drain(sender)
    assert len(server.requests) == 1
    assert (spool.totals().delivered, spool.totals().pending) == (5, 0)


@pytest.mark.parametrize("missing", [0, 2, 4])
def test_an_old_batch_with_a_missing_log_is_sent_under_a_new_key(spool: Spool, server: Server, missing: int) -> None:
    lines = put(spool, 5)
    sender = in_doubt(spool, server, "ask", 24 * 3600)
    server.known = [on_server(line) for index, line in enumerate(lines) if index != missing]
    drain(sender)
    assert len(set(server.keys)) == 2
    assert server.stored == lines


def test_equal_logs_stored_before_the_batch_was_sent_are_not_mistaken_for_it(spool: Spool, server: Server) -> None:
    lines = put(spool, 1)
    sender = in_doubt(spool, server, "ask", 24 * 3600)
    server.known = [on_server(lines[0], NOW - 2 * 3600)]
    drain(sender)
    assert server.stored == lines


def test_an_old_batch_is_not_looked_up_while_its_last_request_may_be_running(spool: Spool, server: Server) -> None:
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
def test_a_batch_is_looked_up_instead_of_sent_again_under_another_token_as_keys_belong_to_users(
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


def test_a_token_replaced_between_two_reads_sends_nothing_under_the_wrong_key(
    spool: Spool, server: Server, tmp_path: Path
) -> None:
    lines = put(spool, 1)
    file = tmp_path / "token"
    file.write_text("old")
    batch = Outbox(spool.file).open(1, 100, TokenFile(file).account(), NOW)
    assert batch is not None
    file.write_text("new")
    link = ServerLink("http://logs.test/", TokenFile(file), ClientSettings(), httpx.MockTransport(server))
    assert link.deliver(batch) == TryLater("the token was replaced", at_once=True)
    assert server.requests == []
    assert spool.totals().pending == len(lines)


def test_the_policy_decides_whether_an_old_batch_is_sent_again_or_set_aside(spool: Spool, server: Server) -> None:
    lines = put(spool, 2)
    drain(in_doubt(spool, server, "resend", 24 * 3600))
    assert server.stored == lines
    put(spool, 2, 2)
    drain(in_doubt(spool, server, "set_aside", 24 * 3600))
    assert server.stored == lines
    assert [log.reason for log in spool.rejected()] == [
        "in doubt: it may be stored on the server already (its Idempotency-Key is too old)"
    ] * 2


def test_a_key_conflict_on_the_server_is_resolved_in_the_same_way(spool: Spool, server: Server) -> None:
    lines = put(spool, 2)
    server.script = [error(409, "This Idempotency-Key was already used with another body")] * 2
    drain(sender_of(spool, server, clock=Clock()))
    assert server.stored == lines
    assert len(set(server.keys)) == 2


def test_a_wrong_device_clock_does_not_change_a_batchs_age(
    spool: Spool, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(spool, 1)
    sender = in_doubt(spool, server, "set_aside", 60)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    drain(sender)
    assert (spool.totals().delivered, spool.totals().rejected) == (1, 0)


@pytest.mark.parametrize(
    ("ahead", "words"),
    [
        (-301, "0:05:01 ahead of"),
        (301, "0:05:01 behind"),
        (10**6, "11 days, 13:46:40 behind"),
        (299, None),
        (-299, None),
    ],
)
def test_a_device_clock_more_than_five_minutes_off_is_warned_about_once(
    spool: Spool, server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    ahead: int, words: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(time, "time", lambda: NOW)
    server.now = NOW + ahead
    sender = sender_of(spool, server)
    for start in range(3):
        put(spool, 1, start)
        drain(sender)
    warnings = [record.getMessage() for record in caplog.records if "clock" in record.getMessage()]
    assert len(warnings) == (0 if words is None else 1)
    assert words is None or f"This device's clock is {words} the server's." in warnings[0]


TRACEPARENT = re.compile("00-([0-9a-f]{32})-([0-9a-f]{16})-01")


def test_all_tries_of_a_batch_are_spans_of_one_trace_that_the_clients_warning_names(
    spool: Spool, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    put(spool, 20)
    server.script = [error(503), error(502), httpx.ReadTimeout("silence")]
    drain(sender_of(spool, server, ClientSettings(max_batch_records=10)))
    *tries, other = [TRACEPARENT.fullmatch(request.headers["traceparent"]) for request in server.requests]
    assert len(tries) == 4
    assert all(tries)
    assert other
    traces, spans = {found[1] for found in tries if found}, {found[2] for found in tries if found}
    assert len(traces) == 1
    assert len(spans) == 4
    assert other[1] not in traces
    (warning,) = [record.getMessage() for record in caplog.records if "spool" in record.getMessage()]
    assert warning == f"Logs stay in the spool: the server responds with 503: no (trace {traces.pop()})"
    assert not any(key.replace("-", "") == found[1] for key, found in zip(server.keys, tries, strict=False) if found)


def test_the_warning_of_a_rejected_log_names_its_trace(
    spool: Spool, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    put(spool, 1)
    server.script = [error(400, errors=[{"index": 0, "field": "repair_id", "message": "there is no such repair"}])]
    drain(sender_of(spool, server))
    found = TRACEPARENT.fullmatch(server.requests[0].headers["traceparent"])
    assert found
    assert f"(trace {found[1]})" in caplog.text


def test_a_captive_portals_clock_is_not_mistaken_for_the_servers(spool: Spool, server: Server) -> None:
    put(spool, 1)
    server.now, server.is_portal = 0.0, True
    sender = sender_of(spool, server)
    assert sender.step().seconds > 0
    assert sender.trouble == "HTTP 200 is not a response of this API to this request: text/html; charset=utf-8"
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
def test_a_login_waits_for_retry_after_only_up_to_a_limit(spool: Spool, wait: str) -> None:
    class Busy(LoginServer):
        def _respond(self, request: httpx.Request) -> httpx.Response:
            busy = httpx.Response(429, json={"message": "too many tries"}, headers={"Retry-After": wait})
            return busy if request.url.path == "/v1/auth/login" else super()._respond(request)

    put(spool, 1)
    sender = sender_of(spool, Busy(), ClientSettings(max_retry_after_seconds=100), Login("jig", "open sesame"))
    assert 100 <= sender.step().seconds <= 101


def test_an_endless_response_is_not_read_endlessly(spool: Spool, server: Server) -> None:
    put(spool, 1)
    server.script = [httpx.Response(200, content=b"x" * (5 * 1024 * 1024))]
    sender = sender_of(spool, server)
    assert sender.step().seconds > 0
    assert "too long" in str(sender.trouble)


class EndlessBody(httpx.SyncByteStream):
    """A body without an end, such as that of a broken proxy."""

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b"x" * 65536


def test_an_endless_response_to_a_login_is_not_read_endlessly(spool: Spool) -> None:
    class Endless(LoginServer):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            is_login = request.url.path == "/v1/auth/login"
            return httpx.Response(200, stream=EndlessBody()) if is_login else super().__call__(request)

    put(spool, 1)
    sender = sender_of(spool, Endless(), credentials=Login("jig", "open sesame"))
    assert sender.step().seconds > 0
    assert "too long" in str(sender.trouble)

"""One attempt to deliver a batch, and what its answer means for the logs in it.

Only an answer that this API alone gives counts as one: a captive portal's 200 or a proxy's 400 must lose no log.
"""

import gzip
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import zstandard

from factory_logs import __version__
from factory_logs.client.credentials import Credentials, NoTokenError
from factory_logs.client.outbox import Batch
from factory_logs.client.server_clock import ServerClock, retry_after
from factory_logs.client.settings import ClientSettings

_LATE = "did not arrive in time"
"""What servers say that have no 408 yet, in a 400, of a request that stopped on its way."""
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_NEXT_ENCODING = {"zstd": "gzip", "gzip": "identity"}


@dataclass(frozen=True, slots=True)
class Stored:
    """All of the batch is committed on the server."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """Nothing was stored; the server names the bad logs by their place in the batch, perhaps not all of them."""

    faults: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Refused:
    """This try stored nothing: something in the batch is bad or too large, and the server does not say which log.

    An earlier try under the same key may be stored all the same: the server need not have looked at the key.
    """

    message: str
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Conflict:
    """The server knows the batch's key with another content."""

    message: str


@dataclass(frozen=True, slots=True)
class Unauthorised:
    """The token is refused or there is none: nothing can be sent until a person has seen to it."""

    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer, or one that says to come again; the batch may or may not be stored. `retry_after` is in seconds."""

    message: str
    retry_after: float | None = None


Outcome = Stored | Rejected | Refused | Conflict | Unauthorised | Failed


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, its body read up to a limit."""

    status: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Any:
        """The body's JSON; None where it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None


class Link:
    """The way to the server. Used by the sender's thread alone."""

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        settings: ClientSettings,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.clock = ServerClock()
        self._credentials = credentials
        self._encoding: str = settings.encoding
        self._whole_answer_seconds = settings.whole_answer_seconds
        self._max_retry_after = settings.max_retry_after_seconds
        self._http = httpx.Client(
            base_url=url,
            transport=transport,
            headers={"User-Agent": f"factory-logs-client/{__version__}"},
            timeout=httpx.Timeout(settings.answer_timeout_seconds, connect=settings.connect_timeout_seconds),
        )

    def close(self) -> None:
        self._http.close()

    def set_clock(self) -> Failed | None:
        """Learn the server's time where it is not known yet; why that failed, or None."""
        if self.clock.known:
            return None
        try:
            answer = self._send("GET", "healthz")
        except httpx.HTTPError as error:
            return Failed(_words(error))
        return None if self.clock.known else self._failed(answer)

    def account(self) -> str | Unauthorised:
        """Whose keys are used now; why there is no token."""
        try:
            return self._credentials.account()
        except NoTokenError as error:
            return Unauthorised(str(error))

    def deliver(self, batch: Batch) -> Outcome:
        """Try once. A login's token that is refused is renewed once within it."""
        account = self.account()
        if isinstance(account, Unauthorised):
            return account
        if account != batch.account:
            return Failed("the token was replaced", 0.0)
        answer = self._authorised(
            "POST",
            "v1/factory_logs",
            content=_compressed(batch.body, self._encoding),
            headers={"Content-Type": "application/x-ndjson", "Idempotency-Key": batch.key}
            | ({} if self._encoding == "identity" else {"Content-Encoding": self._encoding}),
        )
        if not isinstance(answer, Answer):
            return answer
        if answer.status == 415 and self._encoding in _NEXT_ENCODING:
            self._encoding = _NEXT_ENCODING[self._encoding]
            return Failed("the server does not read this compression; another is tried", 0.0)
        return self._meaning(answer, batch)

    def query(self, q: object, page: int) -> list[dict[str, Any]] | Unauthorised | Failed:
        """One page of 100 logs that `q` selects."""
        params = {"q": orjson.dumps(q).decode(), "results_per_page": "100", "page": str(page)}
        answer = self._authorised("GET", "v1/factory_logs", params=params)
        if not isinstance(answer, Answer):
            return answer
        found = answer.json()
        if answer.status != 200 or not isinstance(found, dict) or not isinstance(found.get("objects"), list):
            return self._failed(answer)
        return [record for record in found["objects"] if isinstance(record, dict)]

    def _authorised(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **request: Any
    ) -> Answer | Unauthorised | Failed:
        try:
            for _ in range(2):
                token = self._credentials.token(self._http)
                authorised = {**(headers or {}), "Authorization": f"Token token={token}"}
                answer = self._send(method, path, headers=authorised, **request)
                if answer.status != 401 or not self._credentials.refused(token):
                    break
        except NoTokenError as error:
            return Unauthorised(str(error), self._believed(error.retry_after))
        except httpx.HTTPError as error:
            return Failed(_words(error))
        if answer.status in (401, 403):
            return Unauthorised(f"the server refuses the token: {_message(answer)}")
        return answer

    def _send(self, method: str, path: str, **request: Any) -> Answer:
        with self._http.stream(method, path, **request) as response:
            if response.headers.get("content-type", "").startswith("application/json"):
                self.clock.observe(response.headers.get("date"))  # a captive portal's clock is not the server's
            body, end = bytearray(), time.monotonic() + self._whole_answer_seconds
            for part in response.iter_bytes():
                body += part
                if time.monotonic() > end:
                    raise httpx.ReadTimeout("the answer comes too slowly")
                if len(body) > MAX_ANSWER_BYTES:
                    raise httpx.RemoteProtocolError("the answer is too long for this API")
            return Answer(response.status_code, response.headers, bytes(body))

    def _meaning(self, answer: Answer, batch: Batch) -> Outcome:
        content = answer.json()
        content = content if isinstance(content, dict) else {}
        if answer.status == 201 and content.get("num_created") == len(batch.lines):
            return Stored()
        if answer.status == 413:
            return Refused(_message(answer), too_large=True)
        if answer.status == 409:
            return Conflict(_message(answer))
        if answer.status == 400 and "request_id" in content and _LATE not in _message(answer):
            faults = _faults(content.get("errors"), len(batch.lines))
            return Rejected(faults) if faults else Refused(_message(answer))
        return self._failed(answer)

    def _failed(self, answer: Answer) -> Failed:
        wait = retry_after(answer.headers.get("retry-after"), self.clock.now())
        return Failed(f"the server answered {answer.status}: {_message(answer)}", self._believed(wait))

    def _believed(self, seconds: float | None) -> float | None:
        return None if seconds is None else min(seconds, self._max_retry_after)


def _compressed(body: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        return zstandard.compress(body)
    return gzip.compress(body, 6) if encoding == "gzip" else body


def _faults(errors: object, count: int) -> dict[int, str]:
    """What is wrong with each log that is named by its place."""
    faults: dict[int, str] = {}
    for error in errors if isinstance(errors, list) else []:
        place = error.get("index") if isinstance(error, dict) else None
        if isinstance(place, int) and 0 <= place < count:
            field, message = error.get("field"), error.get("message")
            words = f"{field}: {message}" if field else f"{message}"
            faults[place] = f"{faults[place]}; {words}" if place in faults else words
    return faults


def _message(answer: Answer) -> str:
    content = answer.json()
    message = content.get("message") if isinstance(content, dict) else None
    return str(message)[:500] if message else f"{answer.headers.get('content-type', 'nothing')[:50]}, not of this API"


def _words(error: httpx.HTTPError) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

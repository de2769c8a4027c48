"""New logs of a server as they come, over connections that may break: none is skipped, one may come twice."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson

from factory_logs.client.backoff import Backoff
from factory_logs.client.credentials import Credentials, NoTokenError
from factory_logs.client.errors import ClientError
from factory_logs.client.server_clock import retry_after

SILENCE_SECONDS = 60.0
"""A server gives a sign of life more often than this; after it the connection counts as broken."""
LONGEST_WAIT_SECONDS = 300.0
MAX_EVENT_BYTES = 8 * 1024 * 1024
_FINAL = (400, 401, 403, 404, 405)


class TailError(ClientError):
    """The server will not let these logs be followed; coming back would not help."""


class Tail:
    """The logs that `q` (JSON text) selects, from now on or after the id `last_id`, for ever.

    `on_trouble` hears why a connection ended, before the next is tried. Iterating raises TailError.
    """

    def __init__(
        self,
        url: str,
        credentials: Credentials,
        *,
        q: str | None = None,
        last_id: int | None = None,
        on_trouble: Callable[[str], None] = lambda message: None,
        backoff: Backoff | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._credentials = credentials
        self._params = {} if q is None else {"q": q}
        self.last_id = last_id
        self._on_trouble = on_trouble
        self._backoff = backoff or Backoff(0.5, 15.0)
        self._http = httpx.Client(
            base_url=url, timeout=httpx.Timeout(SILENCE_SECONDS, connect=10.0), transport=transport
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with self._http:
            while True:
                wait: float | None = None
                try:
                    yield from self._connection()
                    trouble = "the server has ended the connection"
                except _TryLaterError as later:
                    trouble, wait = str(later), later.seconds
                except (httpx.HTTPError, NoTokenError) as error:
                    trouble = str(error) or type(error).__name__
                self._on_trouble(trouble)
                time.sleep(self._backoff.failed(None if wait is None else min(wait, LONGEST_WAIT_SECONDS)))

    def _connection(self) -> Iterator[dict[str, Any]]:
        for _ in range(2):
            token = self._credentials.token(self._http)
            headers = {"Authorization": f"Token token={token}", "Accept": "text/event-stream"}
            if self.last_id is not None:
                headers["Last-Event-ID"] = str(self.last_id)
            with self._http.stream("GET", "v1/factory_logs/tail", params=self._params, headers=headers) as answer:
                if answer.status_code == 200 and _is_event_stream(answer):
                    yield from self._records(answer)
                    return
                answer.read()
                if answer.status_code != 401 or not self._credentials.refused(token):
                    raise _refusal(answer)

    def _records(self, answer: httpx.Response) -> Iterator[dict[str, Any]]:
        rest = b""
        for part in answer.iter_bytes():
            # Not by lines: httpx ends one at characters that JSON text may hold.
            *events, rest = (rest + part).split(b"\n\n")
            if len(rest) > MAX_EVENT_BYTES:
                raise httpx.RemoteProtocolError("an event is too long for this API")
            self._backoff.succeeded()
            for event in events:
                members = dict(line.partition(b": ")[::2] for line in event.split(b"\n"))
                if b"data" in members:
                    yield orjson.loads(members[b"data"])
                if b"id" in members:  # only now: whoever takes the record and fails must get it again
                    self.last_id = int(members[b"id"])


class _TryLaterError(Exception):
    """The server cannot serve a follower now. `seconds` is what it asks to wait, if it does."""

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__(message)
        self.seconds = seconds


def _is_event_stream(answer: httpx.Response) -> bool:
    """Not so a captive portal, which answers 200 to everything."""
    return str(answer.headers.get("content-type", "")).startswith("text/event-stream")


def _refusal(answer: httpx.Response) -> Exception:
    try:
        message = str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        message = f"the server answered {answer.status_code}, not as this API does"
    if answer.status_code in _FINAL:
        return TailError(message)
    return _TryLaterError(message, retry_after(answer.headers.get("retry-after"), time.time()))

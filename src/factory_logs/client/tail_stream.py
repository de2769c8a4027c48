"""Follow new logs over unreliable connections. No log is skipped, but a log may be received twice."""

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import orjson

from factory_logs.client.api_response import ApiResponse, read_bounded, with_ids
from factory_logs.client.errors import ClientError
from factory_logs.client.response_timer import WHOLE_RESPONSE_SECONDS, ResponseTimer
from factory_logs.client.retry import Backoff
from factory_logs.client.settings import tls_verification
from factory_logs.client.token_source import BadCredentialsError, NoTokenError, TokenSource

SILENCE_SECONDS = 60.0
"""After this time without data the connection counts as broken; the server sends heartbeats more often."""
LONGEST_WAIT_SECONDS = 300.0
MAX_EVENT_BYTES = 8 * 1024 * 1024
_FINAL = (400, 401, 403, 404, 405)


class TailError(ClientError):
    """The server refuses to stream these logs, or there is no token for it; a retry would not help."""


class TailStream:
    """An endless iterator over the logs that `q` (JSON text) selects, from now on or after the id `last_id`.

    `on_trouble` is called with the reason each time a connection ends. Iterating raises TailError.
    """

    def __init__(
        self,
        url: str,
        tokens: TokenSource,
        *,
        q: str | None = None,
        last_id: int | None = None,
        on_trouble: Callable[[str], None] = lambda message: None,
        backoff: Backoff | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._tokens = tokens
        self._params = {} if q is None else {"q": q}
        self.last_id = last_id
        self._on_trouble = on_trouble
        self._backoff = backoff or Backoff(0.5, 15.0)
        self._timer = ResponseTimer(WHOLE_RESPONSE_SECONDS)
        self._http = httpx.Client(
            base_url=url,
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=10.0),
            transport=transport,
            verify=tls_verification(ca_file),
            event_hooks={"request": [with_ids, self._timer]},
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
                except BadCredentialsError as error:
                    raise TailError(str(error)) from None
                except NoTokenError as error:
                    trouble, wait = str(error), error.retry_after
                except httpx.HTTPError as error:
                    trouble = str(error) or type(error).__name__
                self._on_trouble(trouble)
                time.sleep(self._backoff.failed(None if wait is None else min(wait, LONGEST_WAIT_SECONDS)))

    def _connection(self) -> Iterator[dict[str, Any]]:
        for _ in range(2):
            token = self._tokens.token(self._http)
            headers = {"Authorization": f"Token token={token}", "Accept": "text/event-stream"}
            if self.last_id is not None:
                headers["Last-Event-ID"] = str(self.last_id)
            with self._http.stream("GET", "v1/factory_logs/tail", params=self._params, headers=headers) as response:
                if response.status_code == 200 and _is_event_stream(response):
                    self._timer.stop()  # the stream has no end
                    yield from self._records(response)
                    return
                refusal = read_bounded(response, MAX_EVENT_BYTES)
                if refusal.status != 401 or not refusal.is_error_of_api or not self._tokens.refused(token):
                    raise _refusal(refusal)

    def _records(self, response: httpx.Response) -> Iterator[dict[str, Any]]:
        rest = b""
        for part in response.iter_bytes():
            # httpx also ends lines at characters that JSON text may contain, so events are split here.
            *events, rest = (rest + part).split(b"\n\n")
            if len(rest) > MAX_EVENT_BYTES:
                raise httpx.RemoteProtocolError("an event is too long for this API")
            self._backoff.succeeded()
            for event in events:
                log_id, log = _parsed(event)
                if log is not None:
                    yield log
                # Set after the record is processed: if the caller fails, the record must be sent again.
                if log_id is not None:
                    self.last_id = log_id


class _TryLaterError(Exception):
    """The server cannot stream now. `seconds` is the time in its Retry-After header, or None if the header is
    missing."""

    def __init__(self, message: str, seconds: float | None) -> None:
        super().__init__(message)
        self.seconds = seconds


def _parsed(event: bytes) -> tuple[int | None, dict[str, Any] | None]:
    """Return the id and the log of an event, which may have neither. Raises httpx.RemoteProtocolError for anything that
    this API does not send."""
    members = dict(line.partition(b": ")[::2] for line in event.split(b"\n"))
    try:
        log_id = int(members[b"id"]) if b"id" in members else None
        log = orjson.loads(members[b"data"]) if b"data" in members else None
    except ValueError as error:
        raise httpx.RemoteProtocolError(f"an event is not one of this API: {error}") from None
    if not isinstance(log, dict | None):
        raise httpx.RemoteProtocolError("an event of this API contains a log or nothing")
    return log_id, log


def _is_event_stream(response: httpx.Response) -> bool:
    """Return whether the response is a stream of events, because a captive portal may return a page with status 200."""
    return str(response.headers.get("content-type", "")).startswith("text/event-stream")


def _refusal(response: ApiResponse) -> Exception:
    if response.status in _FINAL and response.is_error_of_api:
        return TailError(response.message)
    return _TryLaterError(response.message, response.retry_after)

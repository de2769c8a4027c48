"""Try to deliver a batch, and determine from the response what happened to its logs.

Only a response that certainly comes from this API counts (api_response.py), because a 200 from a captive portal or a
409 from a proxy must not lose a log. Every other response means "try later".
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import zstandard

from factory_logs import __version__
from factory_logs.client.api_response import TRACEPARENT, ApiResponse, described, read_bounded, traceparent, with_ids
from factory_logs.client.outbox import OutboxBatch
from factory_logs.client.response_timer import ResponseTimer
from factory_logs.client.retry import ServerClock
from factory_logs.client.settings import ClientSettings, tls_verification
from factory_logs.client.token_source import NoTokenError, TokenSource
from factory_logs.schemas.timestamps import format_timestamp

_LATE = "did not arrive in time"
"""The message of a 400 from servers that send it instead of a 408: the request did not arrive completely."""
SAMPLES = 3
MAX_PAGES = 20
CLOCKS_APART_SECONDS = 3600.0
"""The largest expected difference between the clocks of the web server and the database."""
_COMPARED = ("app_name", "product_imei", "repair_id", "timestamp", "tags", "fields")
MAX_RESPONSE_BYTES = 4 * 1024 * 1024
_NEXT_ENCODING = {"zstd": "gzip", "gzip": "identity"}


@dataclass(frozen=True, slots=True)
class BatchStored:
    """The whole batch is committed on the server."""


@dataclass(frozen=True, slots=True)
class LogsRejected:
    """This request stored nothing. The server names bad logs by their index in the batch, but perhaps not all of them.

    `is_key_unused` means that the server has looked for the batch's key and has found nothing stored under it.
    Otherwise, an earlier request with the key may be stored.
    """

    reasons: Mapping[int, str]
    is_key_unused: bool = False


@dataclass(frozen=True, slots=True)
class BatchRefused:
    """This request stored nothing, because a log in the batch is bad, or because the batch is too large. The server
    does not say which log is bad. `is_key_unused` is the same as in LogsRejected."""

    message: str
    too_large: bool = False
    is_key_unused: bool = False


@dataclass(frozen=True, slots=True)
class KeyConflict:
    """The server has stored another body under the batch's key."""

    message: str


@dataclass(frozen=True, slots=True)
class Unauthorised:
    """The token is missing, or the server refuses it. A person must replace it."""

    message: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class TryLater:
    """There was no response, or the response asks for a retry. The batch may be stored. `retry_after` is in seconds.

    `at_once` means that the client itself has solved the problem.
    """

    message: str
    retry_after: float | None = None
    at_once: bool = False


DeliveryOutcome = BatchStored | LogsRejected | BatchRefused | KeyConflict | Unauthorised | TryLater


class ServerLink:
    """Sends requests to the server. Only the sender's thread uses it."""

    def __init__(
        self,
        url: str,
        tokens: TokenSource,
        settings: ClientSettings,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.clock = ServerClock()
        self._tokens = tokens
        self._encoding: str = settings.encoding
        self._max_retry_after = settings.max_retry_after_seconds
        self._http = httpx.Client(
            base_url=url,
            transport=transport,
            verify=tls_verification(settings.ca_file),
            headers={"User-Agent": f"factory-logs-client/{__version__}"},
            timeout=httpx.Timeout(settings.response_timeout_seconds, connect=settings.connect_timeout_seconds),
            event_hooks={"request": [with_ids, ResponseTimer(settings.whole_response_seconds)]},
        )

    def close(self) -> None:
        self._http.close()

    def set_clock(self) -> TryLater | None:
        """Get the server's time if it is not known yet. Return the error if that failed, else None."""
        if self.clock.known:
            return None
        try:
            response = self._send("GET", "healthz")
        except httpx.HTTPError as error:
            return TryLater(described(error))
        return None if self.clock.known else self._failed(response)

    def account(self) -> str | Unauthorised:
        """Return the user that Idempotency-Keys now belong to, or the reason why there is no token."""
        try:
            return self._tokens.account()
        except NoTokenError as error:
            return Unauthorised(str(error))

    def deliver(self, batch: OutboxBatch) -> DeliveryOutcome:
        """Send the batch once, or twice if a login must be renewed, and return the outcome."""
        account = self.account()
        if isinstance(account, Unauthorised):
            return account
        if account != batch.account:
            return TryLater("the token was replaced", at_once=True)
        response = self._authorised(
            "POST",
            "v1/factory_logs",
            content=_compressed(batch.body, self._encoding),
            headers={
                "Content-Type": "application/x-ndjson",
                "Idempotency-Key": batch.key,
                TRACEPARENT: traceparent(batch.trace_id),
            }
            | ({} if self._encoding == "identity" else {"Content-Encoding": self._encoding}),
        )
        if not isinstance(response, ApiResponse):
            return response
        if response.status == 415 and self._encoding in _NEXT_ENCODING:
            self._encoding = _NEXT_ENCODING[self._encoding]
            if response.is_error_of_api:
                return TryLater("the server does not read this compression; another is tried", at_once=True)
        return self._meaning(response, batch)

    def query(self, q: object, page: int) -> list[dict[str, Any]] | Unauthorised | TryLater | None:
        """Return one page of up to 100 logs that `q` selects, or None if the token has no permission to read."""
        params = {"q": orjson.dumps(q).decode(), "results_per_page": "100", "page": str(page)}
        response = self._authorised("GET", "v1/factory_logs", params=params)
        if not isinstance(response, ApiResponse):
            return response
        if response.status == 403 and response.is_error_of_api:
            return None
        found = response.content
        if response.status != 200 or not isinstance(found, dict) or not isinstance(found.get("objects"), list):
            return self._failed(response)
        return [record for record in found["objects"] if isinstance(record, dict)]

    def _authorised(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, **request: Any
    ) -> ApiResponse | Unauthorised | TryLater:
        try:
            for _ in range(2):
                token = self._tokens.token(self._http)
                authorised = {**(headers or {}), "Authorization": f"Token token={token}"}
                response = self._send(method, path, headers=authorised, **request)
                if response.status != 401 or not response.is_error_of_api or not self._tokens.refused(token):
                    break
        except NoTokenError as error:
            return Unauthorised(str(error), self._believed(error.retry_after))
        except httpx.HTTPError as error:
            return TryLater(described(error))
        if response.status == 401 and response.is_error_of_api:
            return _unauthorised(response)
        return response

    def _send(self, method: str, path: str, **request: Any) -> ApiResponse:
        with self._http.stream(method, path, **request) as stream:
            response = read_bounded(stream, MAX_RESPONSE_BYTES)
        is_json = response.headers.get("content-type", "").startswith("application/json")
        if is_json and (stream.is_success or response.is_error_of_api):  # the clock of a captive portal may differ
            self.clock.observe(response.headers.get("date"))
        return response

    def _meaning(self, response: ApiResponse, batch: OutboxBatch) -> DeliveryOutcome:
        content = response.content
        if response.status == 201 and isinstance(content, dict) and content.get("num_created") == len(batch.lines):
            return BatchStored()
        if not response.is_error_of_api:
            return self._failed(response)
        if response.status == 403:
            return _unauthorised(response)
        key_used = response.headers.get("idempotency-key-used")
        if response.status in (400, 413) and key_used == "true":
            return BatchStored()  # a batch never changes, so this key can belong only to this batch
        is_unused = key_used == "false"
        if response.status == 413:
            return BatchRefused(response.message, too_large=True, is_key_unused=is_unused)
        if response.status == 409:
            return KeyConflict(response.message)
        if response.status == 400 and _LATE not in response.message:
            reasons = _reasons(content.get("errors"), len(batch.lines))
            if reasons:
                return LogsRejected(reasons, is_unused)
            return BatchRefused(response.message, is_key_unused=is_unused)
        return self._failed(response)

    def _failed(self, response: ApiResponse) -> TryLater:
        return TryLater(response.trouble, self._believed(response.retry_after))

    def _believed(self, seconds: float | None) -> float | None:
        return None if seconds is None else min(seconds, self._max_retry_after)


def _unauthorised(response: ApiResponse) -> Unauthorised:
    return Unauthorised(f"the server refuses the token: {response.message}")


def _compressed(body: bytes, encoding: str) -> bytes:
    if encoding == "zstd":
        return zstandard.compress(body)
    return gzip.compress(body, 6) if encoding == "gzip" else body


def _reasons(errors: object, count: int) -> dict[int, str]:
    """Return the error of each log that the server names, by the log's index."""
    reasons: dict[int, str] = {}
    for error in errors if isinstance(errors, list) else []:
        index = error.get("index") if isinstance(error, dict) else None
        if isinstance(index, int) and 0 <= index < count:
            field, message = error.get("field"), error.get("message")
            words = f"{field}: {message}" if field else f"{message}"
            reasons[index] = f"{reasons[index]}; {words}" if index in reasons else words
    return reasons


def is_stored(batch: OutboxBatch, link: ServerLink) -> bool | Unauthorised | TryLater | None:
    """Return whether the server has stored the batch. Return None if this token has no permission to read, or the
    reason if the server cannot be asked now.

    A batch is stored completely or not at all, so if one log is missing, no log is stored. There is one exception: on a
    cluster, a stored batch may be invisible until a crashed node has recovered. A log that is found may belong to
    another batch with an equal log, if a script sets `timestamp` itself. So this looks for several logs, and only among
    logs stored since this batch was first sent. By then, all earlier batches of this device had been stored or refused.
    """
    stored: bool | None = True
    for line in _samples(batch):
        found = _is_there(orjson.loads(line), _since(batch, link), link)
        if found is False or isinstance(found, Unauthorised | TryLater):
            return found
        stored = stored and found
    return stored


def _samples(batch: OutboxBatch) -> list[bytes]:
    last = len(batch.lines) - 1
    return [batch.lines[index] for index in sorted({last * n // (SAMPLES - 1) for n in range(SAMPLES)})]


def _since(batch: OutboxBatch, link: ServerLink) -> str | None:
    """Return the earliest time at which the batch can have been stored, or None if the server's clock was set back
    since."""
    if link.clock.now() < batch.started_at:
        return None
    moment = datetime.fromtimestamp(max(0.0, batch.started_at - CLOCKS_APART_SECONDS), UTC)
    return format_timestamp(moment.replace(tzinfo=None))


def _is_there(log: dict[str, Any], since: str | None, link: ServerLink) -> bool | Unauthorised | TryLater | None:
    filters: list[dict[str, Any]] = [{"name": name, "op": "==", "val": log[name]} for name in ("app_name", "timestamp")]
    if "product_imei" in log:
        filters.append({"name": "product_imei", "op": "==", "val": log["product_imei"]})
    if since is not None:
        filters.append({"name": "created_at", "op": ">=", "val": since})
    wanted = _identity(log)
    for page in range(1, MAX_PAGES + 1):
        records = link.query({"filters": filters}, page)
        if not isinstance(records, list):
            return records
        if any(_identity(record) == wanted for record in records):
            return True
        if not records:
            return False
    return None


def _identity(log: dict[str, Any]) -> list[Any]:
    return [log.get(name) for name in _COMPARED]

"""Distinguish this API's responses from responses of a proxy, a gateway or a captive portal.

Proxies, gateways and captive portals may respond instead of the server, with any status and any body, even JSON. So the
client sends its own X-Request-ID with each request. This API repeats the id as `request_id` in the body of every error;
a gateway that responds itself does not. Some gateways replace the id in the request. In that case, the server's
response contains the new id both in its body and in its X-Request-ID header.

Each request also contains a W3C `traceparent`, which the server, and proxies that support traces, write into their log
lines.
"""

import secrets
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import httpx
import orjson

from factory_logs.client.retry import http_date, retry_after

REQUEST_ID = "X-Request-ID"
TRACEPARENT = "traceparent"


@dataclass(frozen=True)
class ApiResponse:
    """An HTTP response with its body, and the X-Request-ID of its request."""

    status: int
    headers: httpx.Headers
    body: bytes
    request_id: str

    @cached_property
    def content(self) -> Any:
        """The decoded JSON of the body, or None if it is not JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def is_error_of_api(self) -> bool:
        """Whether this response is an error of this API for this request."""
        body = self.content
        if not isinstance(body, dict) or not isinstance(body.get("message"), str):
            return False
        named = body.get("request_id")
        return bool(named) and named in (self.request_id, self.headers.get(REQUEST_ID))

    @property
    def message(self) -> str:
        """The message of an error of this API, or a description of another response."""
        message = self.content.get("message") if isinstance(self.content, dict) else None
        if self.is_error_of_api:
            return str(message)[:500]
        return f"HTTP {self.status} is not a response of this API to this request: {self._described(message)}"

    def _described(self, message: object) -> str:
        if message:
            return str(message)[:500]
        if "location" in self.headers:
            return f"a redirect to {self.headers['location'][:500]}"
        return str(self.headers.get("content-type", "no content"))[:50]

    @property
    def sent_at(self) -> float:
        """The time of its Date header, in seconds since 1970, because the device's clock may be wrong; else the
        device's time."""
        date = http_date(self.headers.get("date"))
        return time.time() if date is None else date

    @property
    def retry_after(self) -> float | None:
        """The seconds in its Retry-After header, or None."""
        return retry_after(self.headers.get("retry-after"), self.sent_at)

    @property
    def trouble(self) -> str:
        """The reason to show if this response stops delivery."""
        return f"the server responds with {self.status}: {self.message}" if self.is_error_of_api else self.message


def with_ids(request: httpx.Request) -> None:
    """Set the id of a request, and its trace if it has none. Every HTTP client in this package uses this as an event
    hook."""
    request.headers[REQUEST_ID] = secrets.token_hex(16)
    request.headers.setdefault(TRACEPARENT, traceparent(secrets.token_hex(16)))


def traceparent(trace_id: str) -> str:
    """Return the header for a new span of this trace: version 00, sampled, as a service would choose for a request
    without this header."""
    return f"00-{trace_id}-{secrets.token_hex(8)}-01"


def read_response(response: httpx.Response, body: bytes) -> ApiResponse:
    """Return a response with its body."""
    return ApiResponse(response.status_code, response.headers, body, response.request.headers.get(REQUEST_ID, ""))


def read_bounded(response: httpx.Response, max_bytes: int) -> ApiResponse:
    """Read the body of a streamed response. Raises httpx.TransportError if it is too long."""
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > max_bytes:
            raise httpx.RemoteProtocolError("the response is too long for this API")
    return read_response(response, bytes(body))


def described(error: httpx.HTTPError) -> str:
    """Return the kind and reason of a network error as text."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__

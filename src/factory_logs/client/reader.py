"""Read logs and test results in scripts, over unreliable connections (docs/how-to/analysis.md).

A request is retried with backoff until this API responds. Responses of a proxy or a captive portal are ignored
(api_response.py). Logs are read by cursor: if a page is incomplete, it is requested again, so each log is returned
once.
"""

import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import orjson

from factory_logs import __version__, device_environment
from factory_logs.client import read_results
from factory_logs.client.api_response import ApiResponse, described, read_bounded, read_response, with_ids
from factory_logs.client.errors import ClientError, ServerUnavailableError
from factory_logs.client.read_results import LOG_COLUMNS, LOG_TIMES, ResultRows, Row, flat_log, to_dataframe
from factory_logs.client.response_timer import WHOLE_RESPONSE_SECONDS, ResponseTimer
from factory_logs.client.retry import Backoff
from factory_logs.client.settings import checked_url, tls_verification
from factory_logs.client.token_source import BadCredentialsError, NoTokenError, environment_source, token_source
from factory_logs.errors import (
    HTTP_STATUS,
    BadRequestError,
    FactoryLogsError,
    FieldError,
    ForbiddenError,
    NotFoundError,
    UnauthenticatedError,
)

if TYPE_CHECKING:
    import pandas

Q = Mapping[str, Any] | str | None
"""The API's `q`: an object, or its JSON text; None for all logs."""

LOGS = "v1/factory_logs"
NDJSON = "application/x-ndjson"
PAGE_SIZE = 100
"""The maximum number of records in a page of the server."""
MAX_RESPONSE_BYTES = 64 * 1024 * 1024
IN_MEMORY_BYTES = 8 * 1024 * 1024
"""An export of groups that is larger than this is stored in a temporary file."""
SILENCE_SECONDS = 120.0
"""The timeout without data. It is longer than the server allows a query to run."""
_REFUSALS = {HTTP_STATUS[kind]: kind for kind in (BadRequestError, UnauthenticatedError, ForbiddenError, NotFoundError)}
_TOO_LONG = "The query ran longer than"
"""The beginning of the message of a 503 that means that the same query would take too long again."""
_NEXT = re.compile(r'<([^>]*)>\s*;\s*rel="?next"?')


class Reader:
    """Reads from a Factory Logs server. Several threads must not share a Reader.

    Without `url`, the environment variable FACTORY_LOGS_URL is used. Pass a `token`, a `token_file`, or `username` and
    `password`. Without any of them, FACTORY_LOGS_TOKEN, FACTORY_LOGS_TOKEN_FILE, or FACTORY_LOGS_USERNAME and
    FACTORY_LOGS_PASSWORD are used. `ca_file`, or else FACTORY_LOGS_CA_FILE, contains the trusted CAs, as in
    ClientSettings. If the server does not respond to a request, the request is retried for `patience_seconds`;
    `on_trouble` is called with the reason each time. Raises ValueError for an invalid URL, credentials or CA file.

    Calls raise BadRequestError (400), UnauthenticatedError (401), ForbiddenError (403) and NotFoundError (404), all
    from factory_logs.errors, and ServerUnavailableError after `patience_seconds`.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        token_file: str | os.PathLike[str] | None = None,
        username: str | None = None,
        password: str | None = None,
        ca_file: str | os.PathLike[str] | None = None,
        patience_seconds: float = 300.0,
        on_trouble: Callable[[str], None] = lambda message: None,
        backoff: Backoff | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        given = (token, token_file, username, password)
        self._tokens = environment_source() if given == (None, None, None, None) else token_source(*given)
        self._patience = patience_seconds
        self._on_trouble = on_trouble
        self._backoff = backoff or Backoff(0.5, 15.0)
        self._timer = ResponseTimer(WHOLE_RESPONSE_SECONDS)
        self._http = httpx.Client(
            base_url=checked_url(os.environ.get(device_environment.URL, "") if url is None else url),
            transport=transport,
            verify=tls_verification(ca_file or os.environ.get(device_environment.CA_FILE) or None),
            headers={"User-Agent": f"factory-logs-reader/{__version__}"},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=10.0),
            event_hooks={"request": [with_ids, self._timer]},
        )

    def logs(self, q: Q = None) -> "Logs":
        """Return the logs that `q` selects, in its order. They are read during iteration.

        `q` may contain everything but `single`.
        """
        return Logs(self, _json(q))

    def yields(
        self,
        q: Q = None,
        *,
        bucket: str | None = None,
        by: str | Sequence[str] = (),
        unit: str | None = None,
        passed: str | None = None,
        tz: str | None = None,
    ) -> ResultRows:
        """Return the numbers of attempts and units that pass, one row per bucket and group. `body["total"]` contains
        the numbers for all of them."""
        groups = _names(by)
        asked = {"q": _json(q), "bucket": bucket, "by": groups, "unit": unit, "passed": passed, "tz": tz}
        body = self._result("v1/factory_logs/yield", asked, {"buckets": list, "total": dict})
        return read_results.yield_rows(body, _keys(bucket, groups))

    def stats(
        self,
        q: Q = None,
        *,
        bucket: str | None = None,
        by: str | Sequence[str] = (),
        field: str | Sequence[str] = (),
        tz: str | None = None,
    ) -> ResultRows:
        """Return counts of logs and measures of numbers, one row per bucket and group."""
        groups, fields = _names(by), _names(field)
        asked = {"q": _json(q), "bucket": bucket, "by": groups, "field": fields, "tz": tz}
        body = self._result("v1/factory_logs/stats", asked, {"buckets": list})
        return read_results.stats_rows(body, _keys(bucket, groups), fields)

    def failures(
        self, q: Q = None, *, passed: str | None = None, unit: str | None = None, limit: int | None = None
    ) -> ResultRows:
        """Return the measurements that failed in failed attempts, the most frequent first."""
        asked = {"q": _json(q), "passed": passed, "unit": unit, "limit": limit}
        return read_results.failure_rows(self._result("v1/factory_logs/failures", asked, {"failures": list}))

    def distribution(
        self,
        field: str,
        q: Q = None,
        *,
        by: str | Sequence[str] = (),
        bins: int | None = None,
        lower: float | None = None,
        upper: float | None = None,
    ) -> ResultRows:
        """Return the distribution of the numbers at `field`, one row per group."""
        groups = _names(by)
        asked = {"q": _json(q), "field": field, "by": groups, "bins": bins, "lower": lower, "upper": upper}
        body = self._result("v1/factory_logs/distribution", asked, {"groups": list})
        return read_results.distribution_rows(body, groups)

    def facets(self, field: str | Sequence[str], q: Q = None, *, limit: int | None = None) -> ResultRows:
        """Return the most frequent values of fields. `body` also contains the counts of other and missing values."""
        asked = {"q": _json(q), "field": _names(field), "limit": limit}
        return read_results.facet_rows(self._result("v1/factory_logs/facets", asked, {"facets": dict}))

    def catalog(self) -> ResultRows:
        """Return the apps and the paths in their tags and fields, with the JSON types of the values."""
        return read_results.catalog_rows(self._result("v1/factory_logs/catalog", {}, {"apps": list}))

    def unit(self, imei: str) -> ResultRows:
        """Return the history of a unit, one row per app; `body` also contains the repairs. Raises NotFoundError."""
        path = f"v1/units/{quote(imei, safe='')}"
        return read_results.unit_rows(self._result(path, {}, {"product_imei": str, "apps": list}))

    def close(self) -> None:
        """Close the connections to the server."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _result(self, path: str, asked: Mapping[str, Any], shape: Mapping[str, type]) -> Row:
        parameters = {name: value for name, value in asked.items() if value is not None}
        body: Row = self.get(path, parameters, shape).content
        return body

    def get(self, path: str, parameters: Mapping[str, Any], shape: Mapping[str, type]) -> ApiResponse:
        """Return the server's response, which must be a JSON object that contains members with these names and types.

        Raises the errors that the docstring of Reader lists.
        """

        def read(stream: httpx.Response) -> ApiResponse:
            return read_bounded(stream, MAX_RESPONSE_BYTES)

        def is_result(response: ApiResponse) -> bool:
            return response.status == 200 and _has_shape(response.content, shape)

        return self._retried(path, parameters, "application/json", read, is_result)

    def download(self, path: str, parameters: Mapping[str, Any], file: IO[bytes]) -> None:
        """Write a whole NDJSON export to a file. Raises the errors that the docstring of Reader lists."""

        def is_export(response: httpx.Response | ApiResponse) -> bool:
            return str(response.headers.get("content-type", "")).startswith(NDJSON)

        def read(stream: httpx.Response) -> ApiResponse:
            if stream.status_code != 200 or not is_export(stream):
                return read_bounded(stream, MAX_RESPONSE_BYTES)
            self._timer.stop()  # an export may be of any size
            file.seek(0)
            file.truncate()
            for part in stream.iter_bytes():
                file.write(part)
            return read_response(stream, b"")

        self._retried(path, parameters, NDJSON, read, lambda response: response.status == 200 and is_export(response))

    def _retried(
        self,
        path: str,
        parameters: Mapping[str, Any],
        accept: str,
        read: Callable[[httpx.Response], ApiResponse],
        is_result: Callable[[ApiResponse], bool],
    ) -> ApiResponse:
        """Send the request until the response is a result, or an error of this API that a retry would not change."""
        give_up_at: float | None = None
        while True:
            wait: float | None = None
            try:
                response = self._authorised(path, parameters, accept, read)
                if is_result(response):
                    self._backoff.succeeded()
                    return response
                _raise_refusal(response)
                trouble, wait = response.trouble, response.retry_after
            except BadCredentialsError as error:
                raise UnauthenticatedError(str(error)) from None
            except NoTokenError as error:
                trouble, wait = str(error), error.retry_after
            except httpx.HTTPError as error:
                trouble = described(error)
            pause = self._backoff.failed(wait)
            now = time.monotonic()
            give_up_at = now + self._patience if give_up_at is None else give_up_at
            if now + pause > give_up_at:
                raise ServerUnavailableError(f"no result within {self._patience:g} s: {trouble}")
            self._on_trouble(trouble)
            time.sleep(pause)

    def _authorised(
        self, path: str, parameters: Mapping[str, Any], accept: str, read: Callable[[httpx.Response], ApiResponse]
    ) -> ApiResponse:
        """Send the request once, or twice if a login must be renewed."""
        for is_last in (False, True):
            token = self._tokens.token(self._http)
            headers = {"Authorization": f"Token token={token}", "Accept": accept}
            with self._http.stream("GET", path, params=dict(parameters), headers=headers) as stream:
                response = read(stream)
            if is_last or response.status != 401 or not response.is_error_of_api or not self._tokens.refused(token):
                break
        return response


class Logs:
    """The logs that a `q` selects. Each iteration reads them again, as they exist when the iteration begins."""

    def __init__(self, reader: Reader, q: str | None) -> None:
        self._reader = reader
        self._q = q

    def __iter__(self) -> Iterator[Row]:
        """Yield each record once. Raises the errors that the docstring of Reader lists."""
        return self._groups() if _has_groups(self._q) else self._pages()

    def dataframe(self) -> "pandas.DataFrame":
        """Return all logs as a DataFrame with a column for each JSON path. Raises PandasMissingError."""
        columns = [name for name in LOG_COLUMNS if name not in ("tags", "fields")]
        return to_dataframe([flat_log(log) for log in self], columns, LOG_TIMES)

    def _pages(self) -> Iterator[Row]:
        """Read page by page. If a page is incomplete, it is requested again with its cursor."""
        cursor: str | None = ""
        while cursor is not None:
            asked = {"cursor": cursor, "results_per_page": PAGE_SIZE, **self._parameters}
            response = self._reader.get(LOGS, asked, {"objects": list, "total_pages": int})
            page = response.content
            is_first, cursor = not cursor, _next_cursor(response)
            if is_first and cursor is None and page["total_pages"] > 1 and page["objects"]:
                raise ClientError("the response has no Link header to the next page; a proxy must let it pass")
            yield from page["objects"]

    def _groups(self) -> Iterator[Row]:
        """Read one record per group. Groups have no cursor, so they are read as one export, which is downloaded
        completely before the first record is returned."""
        with tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES) as file:
            self._reader.download(LOGS, self._parameters, file)
            file.seek(0)
            for line in file:
                yield orjson.loads(line)

    @property
    def _parameters(self) -> dict[str, str]:
        return {} if self._q is None else {"q": self._q}


def _has_shape(content: Any, shape: Mapping[str, type]) -> bool:
    """Return whether the content is a result of this API; a captive portal may return a 200 too."""
    return isinstance(content, dict) and all(isinstance(content.get(name), kind) for name, kind in shape.items())


def _has_groups(q: str | None) -> bool:
    try:
        asked = orjson.loads(q or "{}")
    except orjson.JSONDecodeError:
        return False  # the server will respond with an error
    return isinstance(asked, dict) and bool(asked.get("group_by"))


def _raise_refusal(response: ApiResponse) -> None:
    """Raise the error for a response that a retry would not change."""
    if not response.is_error_of_api:
        return
    if response.status in _REFUSALS:
        kind: type[FactoryLogsError] = _REFUSALS[response.status]
        raise kind(response.message, _field_errors(response.content.get("errors")))
    if response.status == 503 and response.message.startswith(_TOO_LONG):
        raise ServerUnavailableError(response.message)


def _field_errors(errors: object) -> list[FieldError]:
    listed = errors if isinstance(errors, list) else []
    return [
        FieldError(str(error.get("field", "")), str(error.get("message", "")))
        for error in listed
        if isinstance(error, dict)
    ]


def _next_cursor(response: ApiResponse) -> str | None:
    """Return the cursor of the next page, or None after the last page.

    Only the cursor in the link is used, because a server with a reverse proxy may not know its own address.
    """
    link = _NEXT.search(response.headers.get("link", ""))
    return parse_qs(urlsplit(link[1]).query).get("cursor", [None])[0] if link else None


def _json(q: Q) -> str | None:
    """Return the JSON text of `q`. Raises BadRequestError."""
    if q is None or isinstance(q, str):
        return q
    try:
        return orjson.dumps(q).decode()
    except TypeError as error:
        raise BadRequestError(f"q cannot be sent as JSON: {error}") from None


def _names(names: str | Sequence[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def _keys(bucket: str | None, by: Sequence[str]) -> list[str]:
    return [*(() if bucket is None else ("bucket",)), *by]

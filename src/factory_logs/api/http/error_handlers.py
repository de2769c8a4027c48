"""Turn every error into a JSON error response without internal details (docs/reference/http-api.md#errors)."""

from collections.abc import Mapping, Sequence

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from factory_logs import metrics
from factory_logs.api.http.responses import json_response
from factory_logs.errors import (
    HTTP_STATUS,
    FactoryLogsError,
    FieldError,
    RequestTimeoutError,
    RetryableError,
    UnauthenticatedError,
)

_log = structlog.get_logger(__name__)
INTERNAL_ERROR = "Internal server error"
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def error_response(
    request: Request,
    status: int,
    message: str,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    body: dict[str, object] = {"message": message}
    if errors:
        body["errors"] = [error.as_json() for error in errors]
    body["request_id"] = request.scope.get("state", {}).get("request_id", "")
    return json_response(body, status, headers)


def domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FactoryLogsError)  # noqa: S101 - registered for this type alone
    metrics.REJECTED.labels(type(error).__name__.removesuffix("Error")).inc()
    headers = error_headers(error, 'Token realm="factory-logs"')
    return error_response(request, HTTP_STATUS[type(error)], error.message, error.errors, headers)


def error_headers(error: FactoryLogsError, challenge: str) -> dict[str, str]:
    """Return the response headers for an error. `challenge` is the WWW-Authenticate header of a 401."""
    headers: dict[str, str] = {}
    if isinstance(error, RetryableError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = challenge
    if isinstance(error, RequestTimeoutError):
        headers["Connection"] = "close"  # otherwise the server would read the rest of the body as the next request
    if error.is_key_used is not None:
        headers["Idempotency-Key-Used"] = str(error.is_key_used).lower()
    return headers


def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type alone
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed_methods(request))
        if request.method == "OPTIONS":  # the legacy API responded in the same way
            return Response(headers=headers)
    return error_response(request, error.status_code, error.detail, headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """Return all methods of a path. Starlette names only the methods of the first route that matches."""
    methods = [
        method
        for method in _METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.router.routes
        )
    ]
    return sorted([*methods, "OPTIONS", *(["HEAD"] if "GET" in methods else [])])


def validation_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type alone
    errors = [FieldError(".".join(str(part) for part in each["loc"][1:]), each["msg"]) for each in error.errors()]
    return error_response(request, 400, "Validation failed", errors)


def client_disconnect(request: Request, error: Exception) -> Response:
    """Return a response for a client that has disconnected. Without it, Starlette would log an error. The access log
    has status 499."""
    return Response(status_code=499)


def unexpected_error(request: Request, error: BaseException) -> Response:
    state = request.scope.get("state", {})
    ids = {name: state[name] for name in ("request_id", "trace_id") if name in state}
    _log.error("unexpected error", exc_info=error, **ids)
    return error_response(request, 500, INTERNAL_ERROR)


def install(app: FastAPI) -> None:
    """Add these handlers to the app."""
    app.add_exception_handler(FactoryLogsError, domain_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(ClientDisconnect, client_disconnect)
    app.add_exception_handler(Exception, unexpected_error)

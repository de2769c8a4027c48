"""Every error becomes the one JSON body of SPEC 3; nothing of the inside is told."""

from collections.abc import Mapping, Sequence

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Match

from factory_logs import metrics
from factory_logs.api.answers import json_answer
from factory_logs.errors import (
    HTTP_STATUS,
    FactoryLogsError,
    FieldError,
    RequestTimeoutError,
    RetryableError,
    UnauthenticatedError,
)

_log = structlog.get_logger(__name__)
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")


def error_answer(
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
    return json_answer(body, status, headers)


def domain_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FactoryLogsError)  # noqa: S101 - registered for this type alone
    metrics.REJECTED.labels(type(error).__name__.removesuffix("Error")).inc()
    headers = headers_of(error, 'Token realm="factory-logs"')
    return error_answer(request, HTTP_STATUS[type(error)], error.message, error.errors, headers)


def headers_of(error: FactoryLogsError, challenge: str) -> dict[str, str]:
    """The headers that an error needs whatever its body is like; `challenge` is of who must show a token."""
    headers: dict[str, str] = {}
    if isinstance(error, RetryableError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, UnauthenticatedError):
        headers["WWW-Authenticate"] = challenge
    if isinstance(error, RequestTimeoutError):
        headers["Connection"] = "close"  # the rest of the body would come where the next request begins
    return headers


def http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this type alone
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed_methods(request))
        if request.method == "OPTIONS":  # the question itself, as the legacy API answered it
            return Response(headers=headers)
    return error_answer(request, error.status_code, error.detail, headers=headers)


def _allowed_methods(request: Request) -> list[str]:
    """All methods of a path; Starlette itself names only those of the first route that matches."""
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
    errors = [FieldError(".".join(str(part) for part in fault["loc"][1:]), fault["msg"]) for fault in error.errors()]
    return error_answer(request, 400, "Validation failed", errors)


def caller_has_gone(request: Request, error: Exception) -> Response:
    """Sent to nobody: whatever is raised instead, Starlette takes for an unexpected error. The log line says 499."""
    return Response(status_code=499)


def unexpected_error(request: Request, error: Exception) -> Response:
    request_id = request.scope.get("state", {}).get("request_id", "")
    _log.error("unexpected error", exc_info=error, request_id=request_id)
    return error_answer(request, 500, "Internal server error")


def install(app: FastAPI) -> None:
    """Let the app answer every error so."""
    app.add_exception_handler(FactoryLogsError, domain_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)
    app.add_exception_handler(ClientDisconnect, caller_has_gone)
    app.add_exception_handler(Exception, unexpected_error)

"""What can go wrong, as domain exceptions, and the one table that maps them to HTTP (SPEC 3).

Code below the web raises these and knows nothing of status codes; the web answers every one of them with the
same JSON body: `{"message", "errors"?, "request_id"}`.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault in the input: where it is and what would be right.

    `field` is a dotted path into the record (`tags.jig_id`); `index` is the record's place in a batch, from 0.
    """

    field: str
    message: str
    index: int | None = None

    def as_json(self) -> dict[str, str | int]:
        place: dict[str, str | int] = {} if self.index is None else {"index": self.index}
        return place | {"field": self.field, "message": self.message}


class FactoryLogsError(Exception):
    """The base of all domain exceptions. `message` is shown to the caller, so it tells nothing of the inside."""

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.errors = tuple(errors)


class BadRequestError(FactoryLogsError):
    """The input breaks the contract; sending it again unchanged will not help."""


class UnauthenticatedError(FactoryLogsError):
    """No token, or one that is unknown, revoked or expired."""


class ForbiddenError(FactoryLogsError):
    """The token is good, its level is not high enough."""


class NotFoundError(FactoryLogsError):
    """There is no such record or no such place."""


class RequestTimeoutError(FactoryLogsError):
    """The request did not arrive in time, so nothing of it was looked at; sent again it may."""


class ConflictError(FactoryLogsError):
    """The request contradicts an earlier one, such as an Idempotency-Key reused with another body."""


class TooLargeError(FactoryLogsError):
    """The body is over the limit."""


class UnsupportedMediaTypeError(FactoryLogsError):
    """The Content-Type or Content-Encoding is not one this route reads."""


class RetryableError(FactoryLogsError):
    """The request may be right and can be sent again unchanged after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyTriesError(RetryableError):
    """Too many failed logins from here, or for this user."""


class OverloadedError(RetryableError):
    """The service cannot take more right now."""


class DatabaseUnavailableError(RetryableError):
    """PostgreSQL cannot be reached or did not answer in time; nothing of the request was acknowledged."""


class QueryTooLongError(DatabaseUnavailableError):
    """PostgreSQL has stopped a statement that ran longer than it may."""

    def saying(self, what: str) -> "QueryTooLongError":
        """The same with what its caller can do."""
        return QueryTooLongError(f"{self.message}: {what}")


HTTP_STATUS: dict[type[FactoryLogsError], int] = {
    BadRequestError: 400,
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    NotFoundError: 404,
    RequestTimeoutError: 408,
    ConflictError: 409,
    TooLargeError: 413,
    UnsupportedMediaTypeError: 415,
    TooManyTriesError: 429,
    OverloadedError: 503,
    DatabaseUnavailableError: 503,
    QueryTooLongError: 503,
}
"""The one table from exception to status code (SPEC 3). 422 is never sent."""

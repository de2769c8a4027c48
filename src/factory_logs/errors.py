"""The domain exceptions, and the table that maps them to HTTP status codes (docs/reference/http-api.md#errors).

Code below `api/` raises these exceptions and does not know status codes. `api/` converts each to the same JSON body:
`{"message", "errors"?, "request_id"}`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

MAX_FIELD_CHARACTERS = 200
"""Longer paths are truncated: a client may send a key of any length, and each error below the key repeats the key."""


def printable(text: str) -> str:
    """Return the text, in which every character that JSON or UTF-8 cannot contain is replaced."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


@dataclass(frozen=True, slots=True)
class FieldError:
    """One error in the input: where it is and what would be right.

    `field` is a dotted path in the record (`tags.jig_id`); `index` is the record's position in a batch, from 0. This
    class makes field and message printable: they contain input of the client, which must never make the response fail.
    """

    field: str
    message: str
    index: int | None = None

    def __post_init__(self) -> None:
        path = printable(self.field)
        path = path if len(path) <= MAX_FIELD_CHARACTERS else f"{path[:MAX_FIELD_CHARACTERS]}…"
        object.__setattr__(self, "field", path)
        object.__setattr__(self, "message", printable(self.message))

    def __str__(self) -> str:
        """Return `field: message`, or only the message if it concerns no field."""
        return f"{self.field}: {self.message}" if self.field else self.message

    def as_json(self) -> dict[str, str | int]:
        position: dict[str, str | int] = {} if self.index is None else {"index": self.index}
        return position | {"field": self.field, "message": self.message}


class FactoryLogsError(Exception):
    """The base class of all domain exceptions. Clients see `message`, so it must not contain internal details."""

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        self.message = printable(message)
        super().__init__(self.message)
        self.errors = tuple(errors)
        self.is_key_used: bool | None = None
        """Whether a write is stored under the Idempotency-Key of the refused request; None if that was not checked."""


class BadRequestError(FactoryLogsError):
    """The input is invalid; a retry will not help."""


NOT_AUTHENTICATED = "The token is unknown, revoked or expired."
STOPPING = "The service is stopping"


class UnauthenticatedError(FactoryLogsError):
    """The token is missing, unknown, revoked or expired."""


class ForbiddenError(FactoryLogsError):
    """The token is valid, but the user's permission level is too low."""


class NotFoundError(FactoryLogsError):
    """The record or path does not exist."""


class RequestTimeoutError(FactoryLogsError):
    """The request did not arrive in time and was not processed. The client may retry."""


class ConflictError(FactoryLogsError):
    """The request contradicts an earlier one, such as an Idempotency-Key reused with another body."""


class TooLargeError(FactoryLogsError):
    """The body is over the limit."""


class UnsupportedMediaTypeError(FactoryLogsError):
    """The route does not support the Content-Type or Content-Encoding."""


class RetryableError(FactoryLogsError):
    """The request may be valid; the client can retry it unchanged after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TooManyTriesError(RetryableError):
    """There were too many failed logins from this address or for this user."""


class OverloadedError(RetryableError):
    """The service is too busy for this request."""


class DiskNearlyFullError(OverloadedError):
    """The disk of the embedded database is too full for new logs; reading works."""

    def __init__(self) -> None:
        super().__init__("The disk of the database is nearly full; new logs are stored again when it has room", 30)


class DatabaseUnavailableError(RetryableError):
    """PostgreSQL is unreachable or did not respond in time. No part of the request was acknowledged."""


class QueryTooLongError(DatabaseUnavailableError):
    """PostgreSQL has cancelled a statement that ran into the time limit."""

    def with_advice(self, advice: str) -> "QueryTooLongError":
        """Return the same error with advice for the client."""
        return QueryTooLongError(f"{self.message}: {advice}")


class DatabaseConnectError(DatabaseUnavailableError):
    """A connection to PostgreSQL cannot be opened.

    `reason` has the address and the cause, for the operator only. `sqlstate` is set if PostgreSQL or a connection
    pooler has rejected the connection.
    """

    def __init__(self, message: str, reason: str, sqlstate: str | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.sqlstate = sqlstate


class UnsuitableDatabaseError(DatabaseConnectError):
    """PostgreSQL is configured in a way that this program cannot use; a retry will not help."""


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
    DiskNearlyFullError: 503,
    DatabaseUnavailableError: 503,
    DatabaseConnectError: 503,
    UnsuitableDatabaseError: 503,
    QueryTooLongError: 503,
}
"""The status code of each exception (docs/reference/http-api.md#errors). 422 is never sent."""

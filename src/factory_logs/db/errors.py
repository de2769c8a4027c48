"""Translate errors of PostgreSQL that the server's state has caused and not the statement, so that a retry may succeed
(docs/reference/http-api.md#errors).

Every statement runs in `translate_errors`, which raises a DatabaseUnavailableError for these errors.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from factory_logs.errors import BadRequestError, DatabaseUnavailableError, FieldError, QueryTooLongError

UNREACHABLE = "The database cannot be reached; try again shortly."
ALL_BUSY = "All database connections are busy; try again shortly."
LOST = "The connection to the database was lost; try again shortly."
FULL = "The database has no room or no connection left; try again shortly."
READ_ONLY = "The database takes no writes at the moment; try again shortly."
BROKEN_OFF = "The database has broken this off in favour of another transaction; try again shortly."
LOCKED = "Another transaction holds a lock on what this needs; try again shortly."
CHANGED = "The database's tables have changed; try again shortly."
FAILED = "The database's server has failed; try again shortly."
REFUSAL = "The database refuses a record; nothing was stored"
USED_IDS = "The database assigns ids that records already have; try again shortly."

UNAVAILABLE = {
    "08": LOST,
    "22004": CHANGED,  # the logs have been distributed since the connection was opened
    "2200H": FULL,  # a sequence has no more ids
    "25006": READ_ONLY,  # a standby
    "25P03": LOST,  # idle_in_transaction_session_timeout and transaction_timeout end the connection
    "25P04": LOST,
    "28": UNREACHABLE,
    "3D000": UNREACHABLE,
    "40": BROKEN_OFF,
    "53": FULL,
    "55P03": LOCKED,
    "57": UNREACHABLE,  # starting, stopping, crashed; 57014 is QueryTooLongError
    "58": FAILED,
}
"""The message for the client, by SQLSTATE or by its first characters. A retry may succeed after each of these errors.
"""
REFUSED = ("22", "23", "44", "54", "P0")
"""The first characters of the SQLSTATEs by which PostgreSQL refuses a record. The service validates each record, so
these come from constraints, triggers and indexes that the operator has added."""
OUT_OF_TRANSACTIONS = ("GetNewTransactionId", "GetNewMultiXactId")
"""PostgreSQL's functions that refuse every write until old transactions are vacuumed. Their SQLSTATE is also that of a
record that is too large for an index, and the message depends on the language of the server."""
ID_CONSTRAINTS = ("factory_logs_pkey", "repairs_pkey", "users_pkey", "retention_runs_pkey")
"""The beginnings of the names of the constraints that a record violates only if a sequence is behind its table, for
example after logical replication, which does not copy sequences."""
LOST_NODE = re.compile(r"connect|\bnode\b|server closed|terminat", re.IGNORECASE)
"""Matches internal errors (XX) by which a cluster's coordinator reports a lost node. Any other XX is a bug."""
TOO_LARGE = "the intermediate result size exceeds"
"""The beginning of the internal error of a cluster if the nodes would send the coordinator more than it may store for
one query."""
TIMEOUT_NOTE = "statement timeout: "
CLIENT_ERRORS = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""The errors that asyncpg raises for a lost connection; the second one if PostgreSQL has closed it."""


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise DatabaseUnavailableError if the database is unreachable or full, QueryTooLongError if the statement took
    too long or would exceed a cluster's limit.

    Any other error passes through, such as the violation of a constraint, because the server's state did not cause it.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailableError(ALL_BUSY) from error
    except (DBAPIError, asyncpg.PostgresError, *CLIENT_ERRORS, OSError, TimeoutError) as error:
        cause = driver_error(error)
        if isinstance(cause, asyncpg.QueryCanceledError):
            raise QueryTooLongError(f"The query ran longer than {_statement_limit(cause)}") from error
        if isinstance(cause, asyncpg.InternalServerError) and TOO_LARGE in str(cause):
            raise QueryTooLongError("The query needs more logs on the coordinator than the cluster allows") from error
        message = _message_for(error, cause)
        if message is None:
            raise
        raise DatabaseUnavailableError(message) from error


@contextmanager
def refusing_records() -> Iterator[None]:
    """Raise BadRequestError if PostgreSQL refuses a record that the block writes."""
    try:
        yield
    except (DBAPIError, asyncpg.PostgresError) as error:
        refused = refusal(error)
        if refused is None:
            raise
        raise refused from error


def refusal(error: BaseException, index: int | None = None) -> BadRequestError | None:
    """Return the error for the client if PostgreSQL has refused its record, or None. `index` is the record's position
    in a batch."""
    cause = driver_error(error)
    state = _sqlstate(cause)
    if state is None or not state.startswith(REFUSED) or unavailable_message(cause) is not None:
        return None
    return BadRequestError(REFUSAL, [FieldError("", f"the database refuses it: {cause}", index)])


def is_of_statement(error: BaseException) -> bool:
    """Return whether the statement has caused the error, so that PostgreSQL has stored nothing of it and the connection
    is still good."""
    state = _sqlstate(error)
    return state is not None and not state.startswith("XX") and unavailable_message(error) is None


def driver_error(error: BaseException) -> BaseException:
    """Return the error that asyncpg raised, without the two errors in which SQLAlchemy wraps it."""
    original = error.orig if isinstance(error, DBAPIError) else None
    if original is None:
        return error
    return original.__cause__ or original


def _sqlstate(error: BaseException) -> str | None:
    state = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    return state if isinstance(state, str) else None


def unavailable_message(error: BaseException) -> str | None:
    """Return the message for an error of PostgreSQL, or None if the server's state did not cause it."""
    state = _sqlstate(error)
    if state is None:
        return None
    if state.startswith("XX"):
        return LOST if LOST_NODE.search(str(error)) else None
    if getattr(error, "server_source_function", None) in OUT_OF_TRANSACTIONS:
        return READ_ONLY
    if state == "23505" and (getattr(error, "constraint_name", None) or "").startswith(ID_CONSTRAINTS):
        return USED_IDS
    return next((message for known, message in UNAVAILABLE.items() if state.startswith(known)), None)


def _message_for(error: BaseException, cause: BaseException) -> str | None:
    if isinstance(cause, OSError | TimeoutError):
        return UNREACHABLE
    if isinstance(cause, asyncpg.InvalidCachedStatementError | asyncpg.OutdatedSchemaCacheError):
        return CHANGED
    if _sqlstate(cause) is not None:
        return unavailable_message(cause)
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    return LOST if lost or isinstance(error, InterfaceError) or isinstance(cause, CLIENT_ERRORS) else None


def _statement_limit(error: asyncpg.QueryCanceledError) -> str:
    notes: list[str] = getattr(error, "__notes__", [])
    return next((note.removeprefix(TIMEOUT_NOTE) for note in notes if note.startswith(TIMEOUT_NOTE)), "it may")

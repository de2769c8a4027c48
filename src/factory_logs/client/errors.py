"""The errors that the client and the reader raise in a script.

They do not include network errors, which the sender handles itself. For a refused request, a reader raises the error in
factory_logs.errors that the server maps to the same status.
"""

from collections.abc import Sequence

from factory_logs.errors import FactoryLogsError, FieldError


class ClientError(FactoryLogsError):
    """The base class of the client's errors."""


class InvalidLogError(ClientError, ValueError):
    """The log is invalid (docs/reference/http-api.md#errors) and was not stored; `errors` lists every invalid field."""

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        fields = "; ".join(f"{error.field}: {error.message}" if error.field else error.message for error in errors)
        super().__init__(f"{message}: {fields}" if fields else message, errors)


class SpoolError(ClientError):
    """The spool on the device's disk cannot be used; the call has stored nothing."""


class SpoolFullError(SpoolError):
    """The spool has reached its limit, or the disk is full; the call has stored nothing."""


class DiskFullError(SpoolFullError):
    """The disk of the spool is full; the call has stored nothing."""


class SpoolDamagedError(SpoolError):
    """The spool's file is damaged, for example by a failing disk."""


class ClosedError(ClientError):
    """The client was closed before the call."""


class ServerUnavailableError(ClientError):
    """A Reader got no response from the server in time, or the query takes longer than the server allows."""


class PandasMissingError(ClientError, ImportError):
    """A DataFrame was requested, but pandas is not installed."""

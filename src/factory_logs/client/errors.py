"""What can go wrong on the device, for the script that calls the client.

The network is not among it: a link that is down is the sender's everyday business and never reaches the caller.
"""

from collections.abc import Sequence

from factory_logs.errors import FactoryLogsError, FieldError


class ClientError(FactoryLogsError):
    """The base of the client's errors."""


class InvalidLogError(ClientError, ValueError):
    """The log breaks the contract (SPEC 1) and was not taken; `errors` names every place at fault."""

    def __init__(self, message: str, errors: Sequence[FieldError] = ()) -> None:
        places = "; ".join(f"{error.field}: {error.message}" if error.field else error.message for error in errors)
        super().__init__(f"{message}: {places}" if places else message, errors)


class SpoolError(ClientError):
    """The spool on the device's disk cannot be used; nothing of the call was stored."""


class SpoolFullError(SpoolError):
    """The spool has reached its limit, or the disk is full; nothing of the call was stored."""


class SpoolDamagedError(SpoolError):
    """The spool's file is not what SQLite wrote, as after a failing disk."""


class ClosedError(ClientError):
    """The client was closed."""

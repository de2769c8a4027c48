"""The errors of retention and of archives."""


class RetentionError(Exception):
    """Retention or an archive cannot continue. The message contains the reason, but no secret."""


class BusyError(RetentionError):
    """Another process is removing expired logs."""

    def __init__(self) -> None:
        super().__init__("another process removes expired logs right now; try again when it has ended")

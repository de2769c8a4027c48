"""The errors of retention and of archives."""


class RetentionError(Exception):
    """A removal of logs or an archive cannot continue. The message contains the reason and no secret."""


class BusyError(RetentionError):
    """Another process is removing expired logs, or distributing the logs over a cluster."""

    def __init__(self) -> None:
        super().__init__(
            "another process is removing expired logs or distributing the logs; try again when it has ended"
        )

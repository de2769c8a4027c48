"""The errors of InfluxQL. Their messages are the same as InfluxDB's, because clients depend on them."""


class InfluxqlError(Exception):
    """The statement cannot be run. The message gives the reason."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ParseError(InfluxqlError):
    """The text is not valid InfluxQL. None of its statements is run."""

"""Split a text into the lines of line protocol, as the service does while a body arrives."""

from collections.abc import Iterator

from factory_logs.influxdb.line_reader import LineSplitter, NumberedLine


def split_lines(text: str, max_characters: int) -> Iterator[NumberedLine]:
    """Yield all lines of a complete text."""
    splitter = LineSplitter(max_characters)
    yield from splitter.feed(text)
    yield from splitter.finish()

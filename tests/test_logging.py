"""The log lines of a worker."""

import io
import json

import pytest

from factory_logs.logging import FLUSH_LINES, AccessLog, format_line


@pytest.mark.parametrize("value", ["\ud800", 2**70, {"\udc00": b"\xff"}, ["é", object()]])
def test_a_line_is_json_with_any_values(value: object) -> None:
    assert json.loads(format_line({"event": "x", "value": value}))["event"] == "x"


@pytest.mark.slow
async def test_lines_are_written_when_there_are_a_thousand() -> None:
    stream = io.BytesIO()
    log = AccessLog(stream)
    for number in range(FLUSH_LINES - 1):
        log.write(number=number)
    assert stream.getvalue() == b""
    log.write(number=FLUSH_LINES - 1)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["number"] for line in lines] == list(range(FLUSH_LINES))

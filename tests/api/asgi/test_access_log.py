"""The log lines of requests."""

import io
import json

import pytest

from factory_logs.api.asgi.access_log import FLUSH_LINES, AccessLog


def write(log: AccessLog, number: int) -> None:
    log.write(request_id=number, method="GET", route="/", status=200, seconds=0.001, user=None)


@pytest.mark.slow
async def test_lines_are_written_when_there_are_a_thousand() -> None:
    stream = io.BytesIO()
    log = AccessLog(stream)
    for number in range(FLUSH_LINES - 1):
        write(log, number)
    assert stream.getvalue() == b""
    write(log, FLUSH_LINES - 1)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["request_id"] for line in lines] == list(range(FLUSH_LINES))

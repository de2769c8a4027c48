"""The log lines of the service."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from factory_logs.logging import format_line


@pytest.mark.parametrize("value", ["\ud800", 2**70, {"\udc00": b"\xff"}, ["é", object()]])
def test_a_line_is_json_with_any_values(value: object) -> None:
    assert json.loads(format_line({"event": "x", "value": value}))["event"] == "x"


WRITES_LINES = """
import asyncio
import structlog
from factory_logs import logging
from factory_logs.api.asgi import access_log

async def main():
    log = access_log.AccessLog()
    for number in range(access_log.FLUSH_LINES):
        log.write(request_id=number, method="GET", route="/", status=200, seconds=0.001, user=None)

logging.configure("info")
structlog.get_logger().error("x" * 100_000)
asyncio.run(main())
print("done")
"""


def test_a_line_that_cannot_be_written_is_dropped() -> None:
    with Path("/dev/full").open("wb") as full:  # each write to it fails, as to a full disk
        run = subprocess.run([sys.executable, "-c", WRITES_LINES], stdout=subprocess.PIPE, stderr=full, check=False)
    assert run.stdout == b"done\n"

"""The log lines of the service."""

import json

import pytest

from factory_logs.logging import format_line


@pytest.mark.parametrize("value", ["\ud800", 2**70, {"\udc00": b"\xff"}, ["é", object()]])
def test_a_line_is_json_with_any_values(value: object) -> None:
    assert json.loads(format_line({"event": "x", "value": value}))["event"] == "x"

from datetime import timedelta

import pytest

from factory_logs.durations import parse_duration
from factory_logs.errors import BadRequestError


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("12h", 43200), ("90d", 7776000), ("2w", 1209600)]
)
def test_durations_are_parsed(text: str, seconds: int) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "h", "-1h", "1.5h", "1 h", "1h30m", "١h", "0d"])
def test_an_invalid_duration_is_an_error(text: str) -> None:
    with pytest.raises(BadRequestError):
        parse_duration(text)

"""When to try again."""

import random
from email.utils import formatdate

import pytest

from factory_logs.client.retry import Backoff, retry_after
from tests.client.scripted_server import NOW


def test_waits_grow_and_are_random_over_their_whole_length() -> None:
    backoff = Backoff(1.0, 8.0, random.Random(7))
    samples = []
    for _ in range(500):
        backoff.succeeded()
        samples.append([backoff.failed() for _ in range(6)])
    for failures, longest in enumerate((1, 2, 4, 8, 8, 8)):
        waits = sorted(sample[failures] for sample in samples)
        assert waits[-1] <= longest
        assert waits[len(waits) // 2] == pytest.approx(longest / 2, rel=0.15)
        assert waits[0] < longest * 0.05


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
        ("soon", None),
        ("-1", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        (None, None),
        ("9" * 400, 999999999.0),
        ("Mon, 01 Jan 2024 00:00:00 +99999999999999999999", None),
    ],
)
def test_retry_after_may_be_seconds_or_a_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.load.tally import LONGEST_SECONDS, SHORTEST_SECONDS, STEP, Latencies


@given(
    st.lists(st.floats(SHORTEST_SECONDS, LONGEST_SECONDS), min_size=1, max_size=50),
    st.sampled_from([0.5, 0.95, 0.99, 1]),
)
def test_a_percentile_is_at_most_a_bucket_above_the_true_one(seconds: list[float], share: float) -> None:
    latencies = Latencies()
    for value in seconds:
        latencies.add(value)
    true = sorted(seconds)[max(math.ceil(share * len(seconds)), 1) - 1]
    assert true * 0.9999 <= (latencies.percentile(share) or 0) <= true * STEP * 1.0001


@pytest.mark.parametrize(("seconds", "counted_as"), [(0.0, SHORTEST_SECONDS), (1e9, LONGEST_SECONDS)])
def test_what_is_outside_counts_as_at_the_end(seconds: float, counted_as: float) -> None:
    latencies = Latencies()
    latencies.add(seconds)
    assert latencies.percentile(0.5) == pytest.approx(counted_as, rel=STEP - 1)


def test_nothing_has_no_percentile() -> None:
    assert Latencies().percentile(0.5) is None

"""Counts and percentiles of a load test."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.load.statistics import LONGEST_SECONDS, SHORTEST_SECONDS, STEP, Latencies, LoadCounts, merged

SECONDS = st.lists(st.floats(SHORTEST_SECONDS, LONGEST_SECONDS), min_size=1, max_size=50)


def latencies_of(*seconds: float) -> Latencies:
    latencies = Latencies()
    for value in seconds:
        latencies.add(value)
    return latencies


@given(SECONDS, st.sampled_from([0.5, 0.95, 0.99, 1]))
def test_a_percentile_is_at_most_a_bucket_above_the_true_one(seconds: list[float], share: float) -> None:
    true = sorted(seconds)[max(math.ceil(share * len(seconds)), 1) - 1]
    assert true * 0.9999 <= (latencies_of(*seconds).percentile(share) or 0) <= true * STEP * 1.0001


@given(SECONDS, SECONDS, st.sampled_from([0.5, 0.99]))
def test_merged_histograms_are_one_of_all(some: list[float], others: list[float], share: float) -> None:
    both = latencies_of(*some)
    both.merge(latencies_of(*others))
    assert both.count == len(some) + len(others)
    assert both.percentile(share) == latencies_of(*some, *others).percentile(share)


@pytest.mark.parametrize(("seconds", "counted_as"), [(0.0, SHORTEST_SECONDS), (1e9, LONGEST_SECONDS)])
def test_a_time_outside_counts_as_at_the_end(seconds: float, counted_as: float) -> None:
    assert latencies_of(seconds).percentile(0.5) == pytest.approx(counted_as, rel=STEP - 1)


def test_without_times_there_is_no_percentile() -> None:
    assert Latencies().percentile(0.5) is None


def test_merged_tallies_are_the_sum_of_each_count() -> None:
    one = LoadCounts(1, 2, 3, 4, 5, Counter(a=1), latencies_of(1), 6, 7, 8)
    other = LoadCounts(10, 20, 30, 40, 50, Counter(a=1, b=2), latencies_of(2), 60, 70, 80)
    total = merged([one, other])
    assert (total.stored, total.replayed, total.refused, total.in_doubt, total.requests) == (11, 22, 33, 44, 55)
    assert total.failures == {"a": 2, "b": 2}
    assert total.latencies.count == 2
    assert (total.request_seconds, total.retry_seconds, total.processor_seconds) == (66, 77, 88)
    assert one.failures == {"a": 1}

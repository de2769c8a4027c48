"""The records of a JSON array are counted before decoding if they could use much memory."""

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.errors import BadRequestError, TooLargeError
from factory_logs.ingest.batch_collector import BatchLimits
from factory_logs.ingest.batch_decoder import BatchReader
from factory_logs.schemas.record_limits import RecordLimits

LIMITS = RecordLimits(256 * 1024, 32)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('[]{},"\\ab', max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text('[]{},"\\ab', max_size=4), inner, max_size=4),
    max_leaves=30,
)


async def test_a_million_empty_objects_are_refused_in_bounded_memory() -> None:
    body = b"[" + b",".join([b"{}"] * 1_000_000) + b"]"
    reader = BatchReader(LIMITS, BatchLimits(max_records=10_000))
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError, match="more than 10000 records"):
            await reader.read_array(body)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * 1024 * 1024


@pytest.mark.slow
@given(st.lists(JSON, max_size=12), st.integers(1, 12), st.sampled_from([None, 1]))
async def test_an_array_is_refused_if_and_only_if_it_holds_more_records_than_a_body_may(
    values: list[Any], most: int, indent: int | None
) -> None:
    reader = BatchReader(LIMITS, BatchLimits(max_records=most, max_bad=100))
    try:
        await reader.read_array(json.dumps(values, indent=indent).encode())
    except TooLargeError:
        assert len(values) > most
    except BadRequestError:  # for example, an integer that no parser accepts
        assert len(values) <= most
    else:
        assert len(values) <= most


async def test_brackets_in_strings_are_not_counted() -> None:
    values = [{"app_name": "[{,}]" * 50 + '"\\', "timestamp": "2024-01-31"}] * 3
    reader = BatchReader(LIMITS, BatchLimits(max_records=3))
    await reader.read_array(json.dumps(values).encode())
    assert len(reader.take().logs) == 3
